//! pending
#[derive(Debug)]
pub struct ModelDocument;
