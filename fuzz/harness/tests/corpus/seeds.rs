//! What the corpora begin with, made by the code that it is for.

mod described;
mod texts;
mod wire;

/// A file's name, its input, and how much comes of it as its target counts.
pub(crate) type Seed = (&'static str, Vec<u8>, usize);

/// By target.
pub(crate) fn all() -> Vec<(&'static str, Vec<Seed>)> {
    vec![
        ("wire", wire::wire()),
        ("session", wire::session()),
        ("gate", described::gate()),
        ("repair", described::repair()),
        ("disk", described::disk()),
        ("config", texts::config()),
        ("body", texts::body()),
        ("scenario", texts::scenario()),
    ]
}
