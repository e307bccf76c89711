//! Changing which cluster keys a `knot.toml` holds, and nothing else of it: comments and order stay.

use std::fs::{self, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use toml_edit::{Array, DocumentMut, Item, Value};

use super::{ClusterKey, Config, ConfigError, KeyRing, host_name};
use crate::storage::write_whole;

/// What is done to the keys.
#[derive(Clone, Debug)]
pub enum KeyChange {
    /// Takes this one from others, and begins with the one that is first, as before.
    Add(String),
    /// Begins with the one of this id.
    Promote(String),
    /// Takes the one of this id from nobody any more.
    Remove(String),
}

/// Why the keys stay as they were.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyChangeError {
    /// The file as it is, or as it would be, is no configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is no file to change.
    #[error("no knot.toml was found to change; name one with --config")]
    NoFile,
    /// The keys are not in the file.
    #[error("the keys come from the variable {0}, which this cannot change: change it where the server is started")]
    Variable(&'static str),
    /// The file holds no keys.
    #[error("{} has no cluster key to begin with: write `key` into its [server.cluster]", .0.display())]
    NoCluster(PathBuf),
    /// No key has the id.
    #[error("no key {asked} is in the file; it holds {held}")]
    Unknown {
        /// What was asked for.
        asked: String,
        /// The ids that are there.
        held: String,
    },
    /// Others would be shut out.
    #[error("{0} is the key that this server begins with: promote another one first")]
    First(String),
    /// The file cannot be read or written.
    #[error("cannot change {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What a file's keys were changed to. Until it is dropped nobody else changes them by [`change_keys`].
#[derive(Debug)]
pub struct ChangedKeys {
    /// The file.
    pub path: PathBuf,
    /// The keys it has now.
    pub keys: KeyRing,
    _alone: fs::File,
}

/// Changes the keys in the file that [`Config::load`] would read.
///
/// # Errors
/// When there is no such file, its keys are elsewhere, or what would come out is no configuration.
pub fn change_keys(file: Option<&Path>, change: &KeyChange) -> Result<ChangedKeys, KeyChangeError> {
    let loaded = Config::load(file)?;
    let path = loaded.source.ok_or(KeyChangeError::NoFile)?;
    for variable in ["KNOT_CLUSTER_KEY", "KNOT_CLUSTER_KEYS"] {
        if std::env::var_os(variable).is_some_and(|text| !text.is_empty()) {
            return Err(KeyChangeError::Variable(variable));
        }
    }
    let failed = |source| KeyChangeError::Io { path: path.clone(), source };
    // Of two commands at once the later has to change what the earlier has written.
    let alone = lock(&path).map_err(failed)?;
    let text = fs::read_to_string(&path).map_err(failed)?;
    let changed = changed(&path, &text, change)?;
    // What is not understood never takes the place of what is.
    let config = Config::parse(Some((&path, &changed)), &super::variables(), &host_name())?.config;
    let keys = config.cluster.ok_or_else(|| KeyChangeError::NoCluster(path.clone()))?.keys;
    replace(&path, &changed).map_err(failed)?;
    Ok(ChangedKeys { path, keys, _alone: alone })
}

fn changed(path: &Path, text: &str, change: &KeyChange) -> Result<String, KeyChangeError> {
    let none = || KeyChangeError::NoCluster(path.to_owned());
    let mut document: DocumentMut = text.parse().map_err(|_| none())?;
    let section = document.get_mut("server").and_then(|server| server.get_mut("cluster"));
    let cluster = section.and_then(Item::as_table_like_mut).ok_or_else(none)?;
    let one = cluster.get("key").and_then(Item::as_str).map(str::to_owned);
    let several = cluster.get("keys").and_then(Item::as_array);
    let several = several.into_iter().flatten().filter_map(|key| key.as_str().map(str::to_owned));
    let mut keys: Vec<String> = one.into_iter().chain(several).collect();
    if keys.is_empty() {
        return Err(none());
    }
    match change {
        KeyChange::Add(key) if keys.contains(key) => {}
        KeyChange::Add(key) => keys.push(key.clone()),
        KeyChange::Promote(asked) => {
            let at = place(&keys, asked)?;
            keys[..=at].rotate_right(1);
        }
        KeyChange::Remove(asked) => match place(&keys, asked)? {
            0 => return Err(KeyChangeError::First(asked.clone())),
            at => drop(keys.remove(at)),
        },
    }
    let mut list = Value::Array(keys.iter().collect::<Array>());
    if let Some(held) = cluster.get_mut("keys") {
        keep_decor(&mut list, held);
        *held = Item::Value(list);
        cluster.remove("key");
    } else {
        // In its place, with the comments that stand before and beside it.
        let decor = cluster.key("key").map(|key| key.leaf_decor().clone());
        if let Some(key) = cluster.remove("key") {
            keep_decor(&mut list, &key);
        }
        cluster.insert("keys", Item::Value(list));
        if let (Some(mut key), Some(decor)) = (cluster.key_mut("keys"), decor) {
            *key.leaf_decor_mut() = decor;
        }
    }
    Ok(document.to_string())
}

/// Lets a value stand as the one before it did, with the comment beside it.
fn keep_decor(value: &mut Value, before: &Item) {
    if let Some(before) = before.as_value() {
        *value.decor_mut() = before.decor().clone();
    }
}

fn place(keys: &[String], asked: &str) -> Result<usize, KeyChangeError> {
    let ids: Vec<String> = keys
        .iter()
        .map(|key| ClusterKey::new(key).map_or_else(|_| String::new(), |key| key.id().to_string()))
        .collect();
    let unknown = || KeyChangeError::Unknown { asked: asked.to_owned(), held: ids.join(", ") };
    ids.iter().position(|id| id == asked).ok_or_else(unknown)
}

/// How long somebody else may have the folder locked, and between two looks at whether it is.
const LOCK_TIMEOUT: Duration = Duration::from_secs(40);
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Waits until nobody else changes the file, until what it returns is dropped. It is the folder that is locked, since a
/// change puts another file in the place of the one there was.
fn lock(path: &Path) -> io::Result<fs::File> {
    let path = fs::canonicalize(path)?;
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let opened = fs::File::open(folder)?;
    let until = Instant::now() + LOCK_TIMEOUT;
    loop {
        match opened.try_lock() {
            Ok(()) => return Ok(opened),
            Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => {
                let why = format!("another command has locked {} for {} s", folder.display(), LOCK_TIMEOUT.as_secs());
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// Puts a text in a file's place, whole or not at all. It belongs to whom the file did, and is readable by the same.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let path = fs::canonicalize(path)?;
    let before = fs::metadata(&path)?;
    write_whole(&path, text.as_bytes(), |file| {
        chown(file, &before)?;
        file.set_permissions(before.permissions())
    })
}

/// Gives a file to whom another belongs. That changes nothing, and needs no rights, where it is the same.
fn chown(file: &fs::File, like: &fs::Metadata) -> io::Result<()> {
    let made = file.metadata()?;
    if (made.uid(), made.gid()) == (like.uid(), like.gid()) {
        return Ok(());
    }
    std::os::unix::fs::fchown(file, Some(like.uid()), Some(like.gid()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const OLD: &str = "0123456789abcdefghijklmnopqrstuv";
    const NEW: &str = "NDJuIFxrRbWLp6tKhVzyqNs5H5fCK1Cl";

    fn id(key: &str) -> String {
        ClusterKey::new(key).unwrap().id().to_string()
    }

    fn after(text: &str, change: &KeyChange) -> Result<String, String> {
        changed(Path::new("knot.toml"), text, change).map_err(|error| error.to_string())
    }

    #[test]
    fn a_key_takes_anothers_place_step_by_step_and_the_rest_stays() {
        let text = format!(
            "# ours\n[server]\nzone = 'au' # here\n\n[server.cluster]\n# the secret\nkey = '{OLD}'\npeers = ['a']\n"
        );
        let added = after(&text, &KeyChange::Add(NEW.to_owned())).unwrap();
        assert!(added.contains(&format!("# the secret\nkeys = [\"{OLD}\", \"{NEW}\"]")), "{added}");
        assert!(
            added.starts_with("# ours\n[server]\nzone = 'au' # here\n") && added.contains("peers = ['a']"),
            "{added}"
        );
        assert_eq!(after(&added, &KeyChange::Add(NEW.to_owned())).unwrap(), added);
        let promoted = after(&added, &KeyChange::Promote(id(NEW))).unwrap();
        assert!(promoted.contains(&format!("keys = [\"{NEW}\", \"{OLD}\"]")), "{promoted}");
        let removed = after(&promoted, &KeyChange::Remove(id(OLD))).unwrap();
        assert!(removed.contains(&format!("keys = [\"{NEW}\"]")), "{removed}");
        let config = Config::parse(Some((Path::new("knot.toml"), &removed)), &BTreeMap::new(), "box").unwrap().config;
        assert_eq!(config.cluster.unwrap().keys.first().id().to_string(), id(NEW));
    }

    #[test]
    fn comments_beside_the_keys_stay() {
        let text = format!("[server.cluster]\nkey = '{OLD}' # of 2025\nname = 'x' # ours\n");
        let added = after(&text, &KeyChange::Add(NEW.to_owned())).unwrap();
        assert!(added.contains(&format!("keys = [\"{OLD}\", \"{NEW}\"] # of 2025\n")), "{added}");
        let removed = after(&added, &KeyChange::Promote(id(NEW))).unwrap();
        let removed = after(&removed, &KeyChange::Remove(id(OLD))).unwrap();
        assert!(removed.contains(&format!("keys = [\"{NEW}\"] # of 2025\n")), "{removed}");
        assert!(removed.contains("name = 'x' # ours"), "{removed}");
    }

    #[test]
    fn what_would_shut_servers_out_is_refused() {
        let text = format!("[server.cluster]\nkeys = ['{OLD}', '{NEW}']\n");
        assert!(after(&text, &KeyChange::Remove(id(OLD))).unwrap_err().contains("promote another one first"));
        let unknown = after(&text, &KeyChange::Promote("00000000".to_owned())).unwrap_err();
        assert!(unknown.contains(&format!("it holds {}, {}", id(OLD), id(NEW))), "{unknown}");
        assert!(after("[server]\n", &KeyChange::Add(NEW.to_owned())).unwrap_err().contains("no cluster key"));
    }

    #[test]
    fn a_file_keeps_its_permissions() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("knot.toml");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        replace(&path, "new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
