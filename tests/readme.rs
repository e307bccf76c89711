//! The README's tour works as it is pasted: its `sh` blocks run, in order, against a real demo.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const DEMO_TIMEOUT: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(50);

/// A fenced block: what stands behind the fence, and what is in it.
struct Block {
    label: String,
    text: String,
}

fn blocks(markdown: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut inside = false;
    for line in markdown.lines() {
        if let Some(label) = line.strip_prefix("```") {
            if !inside {
                found.push(Block { label: label.to_owned(), text: String::new() });
            }
            inside = !inside;
        } else if inside && let Some(block) = found.last_mut() {
            block.text.push_str(line);
            block.text.push('\n');
        }
    }
    assert!(!inside, "the README has a fence that is not closed");
    found
}
