//! The two secrets a server makes at its first start: the key that is its identity, and the admin's token.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use knot_engine::NodeKey;

/// The file that holds the node's secret key, in hexadecimal.
pub const NODE_KEY_FILE: &str = "node.key";
/// The file that holds the admin's token.
pub const ADMIN_TOKEN_FILE: &str = "admin.token";

const SECRET_BYTES: usize = 32;
/// Longest token taken from a file that was there already, in bytes.
const TOKEN_BYTES_MAX: usize = 512;

/// Why a secret cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// The file cannot be read or made.
    #[error("cannot use {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is there and holds something else.
    #[error("{} is not {expected}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it should be.
        expected: &'static str,
    },
    /// The system has no randomness to give.
    #[error("no randomness: {0}")]
    Random(getrandom::Error),
}

/// The node's key from `data_dir`, made and written durably where there is none.
///
/// # Errors
/// When the file cannot be read or written, or holds anything but 64 hexadecimal digits.
pub fn node_key(data_dir: &Path) -> Result<NodeKey, SecretError> {
    let path = data_dir.join(NODE_KEY_FILE);
    let text = load_or_create(&path, || Ok(hex(&random()?)))?;
    let bytes =
        unhex(text.trim()).ok_or(SecretError::Malformed { path, expected: "a node key of 64 hexadecimal digits" })?;
    Ok(NodeKey::from_bytes(bytes))
}

/// The admin's token from `data_dir`, made and written durably where there is none.
///
/// # Errors
/// When the file cannot be read or written, or holds no token.
pub fn admin_token(data_dir: &Path) -> Result<String, SecretError> {
    let path = data_dir.join(ADMIN_TOKEN_FILE);
    let text = load_or_create(&path, || Ok(base64url(&random()?)))?;
    checked_token(path, &text)
}

/// The admin's token, if there is a file for it.
///
/// # Errors
/// When the file is there and cannot be read, or holds no token.
pub fn read_admin_token(data_dir: &Path) -> Result<Option<String>, SecretError> {
    let path = data_dir.join(ADMIN_TOKEN_FILE);
    match fs::read_to_string(&path) {
        Ok(text) => checked_token(path, &text).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(SecretError::File { path, source }),
    }
}

/// Writes a file that only its owner may read, durably and never in part.
///
/// # Errors
/// As for [`write_whole`].
pub fn write_private(path: &Path, contents: &[u8]) -> io::Result<()> {
    write_whole(path, contents, |_| Ok(()))
}

/// Writes a file durably and never in part: under another name, synced, renamed, and the folder synced. `prepare` is given
/// the new file, which is its owner's alone, before anything is in it.
///
/// # Errors
/// When any of these steps fails; a file that was there before is then untouched.
pub fn write_whole(path: &Path, contents: &[u8], prepare: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    // One that a crash has left, or somebody has put there.
    let _ = fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    let written = prepare(&file)
        .and_then(|()| file.write_all(contents))
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written?;
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

fn load_or_create(path: &Path, make: impl FnOnce() -> Result<String, SecretError>) -> Result<String, SecretError> {
    let unusable = |source| SecretError::File { path: path.to_owned(), source };
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let text = make()?;
            write_private(path, format!("{text}\n").as_bytes()).map_err(unusable)?;
            Ok(text)
        }
        read => read.map_err(unusable),
    }
}

fn checked_token(path: PathBuf, text: &str) -> Result<String, SecretError> {
    let token = text.trim();
    if token.is_empty() || token.len() > TOKEN_BYTES_MAX || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(SecretError::Malformed { path, expected: "a token on one line" });
    }
    Ok(token.to_owned())
}

fn random() -> Result<[u8; SECRET_BYTES], SecretError> {
    let mut bytes = [0; SECRET_BYTES];
    getrandom::fill(&mut bytes).map_err(SecretError::Random)?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; SECRET_BYTES]> {
    let mut bytes = [0; SECRET_BYTES];
    if text.len() != 2 * SECRET_BYTES || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// RFC 4648, section 5, without padding.
pub(crate) fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..=group.len() {
            let sextet = usize::try_from(bits >> (18 - 6 * digit) & 63).unwrap_or(0);
            text.push(char::from(ALPHABET[sextet]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn base64url_agrees_with_the_rfc() {
        for (bytes, text) in [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64url(bytes.as_bytes()), text);
        }
        assert_eq!(base64url(&[0xfb, 0xff]), "-_8");
    }

    #[test]
    fn both_secrets_are_made_once_and_only_the_owner_reads_them() {
        let dir = tempfile::tempdir().expect("a folder");
        let (key, token) = (node_key(dir.path()).expect("made"), admin_token(dir.path()).expect("made"));
        assert_eq!(node_key(dir.path()).expect("read").node_id(), key.node_id());
        assert_eq!(admin_token(dir.path()).expect("read"), token);
        assert_eq!(token.len(), 43);
        for name in [NODE_KEY_FILE, ADMIN_TOKEN_FILE] {
            let mode = fs::metadata(dir.path().join(name)).expect("it is there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 2, "temporary files were left");
    }

    #[test]
    fn a_token_that_is_there_is_used_as_it_is() {
        let dir = tempfile::tempdir().expect("a folder");
        assert_eq!(read_admin_token(dir.path()).expect("no file is no error"), None);
        fs::write(dir.path().join(ADMIN_TOKEN_FILE), "shared by three\n").expect("written");
        assert!(admin_token(dir.path()).is_err(), "a token has no spaces");
        fs::write(dir.path().join(ADMIN_TOKEN_FILE), "shared-by-three\n").expect("written");
        assert_eq!(admin_token(dir.path()).expect("read"), "shared-by-three");
    }

    #[test]
    fn a_damaged_key_is_never_replaced() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join(NODE_KEY_FILE), "not a key").expect("written");
        let error = node_key(dir.path()).expect_err("it is damaged").to_string();
        assert!(error.contains("node.key is not a node key"), "{error}");
    }
}
