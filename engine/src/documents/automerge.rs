//! pending
#[derive(Debug)]
pub struct AutomergeDocument;
