//! The files of a scripted container: a tree in memory, with other trees mounted into it. Volumes are trees of their own, so
//! that containers share them and claims outlive their pods.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use jiff::Timestamp;

/// Bytes that one tree holds at most; writing beyond fails with "No space left on device".
const TREE_BYTES: usize = 64 * 1024 * 1024;

/// A file or a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kubelet) enum Node {
    /// A directory.
    Dir {
        /// When it last changed.
        modified: Timestamp,
    },
    /// A file.
    File {
        /// What stands in it.
        data: Arc<Vec<u8>>,
        /// When it last changed.
        modified: Timestamp,
    },
}

/// A tree of files; clones are the same one. Paths inside have no leading slash; the root is `""`.
#[derive(Clone, Debug, Default)]
pub(in crate::kubelet) struct Tree(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    nodes: BTreeMap<String, Node>,
    bytes: usize,
}

/// Why a file operation failed, in the words of the C library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kubelet) enum FsError {
    /// ENOENT.
    NotFound,
    /// ENOTDIR.
    NotADirectory,
    /// EISDIR.
    IsADirectory,
    /// EEXIST.
    Exists,
    /// ENOTEMPTY.
    NotEmpty,
    /// EROFS.
    ReadOnly,
    /// ENOSPC.
    Full,
    /// EBUSY: a mount point cannot be removed.
    Busy,
}

impl std::fmt::Display for FsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotFound => "No such file or directory",
            Self::NotADirectory => "Not a directory",
            Self::IsADirectory => "Is a directory",
            Self::Exists => "File exists",
            Self::NotEmpty => "Directory not empty",
            Self::ReadOnly => "Read-only file system",
            Self::Full => "No space left on device",
            Self::Busy => "Device or resource busy",
        })
    }
}

/// A tree mounted at a path.
#[derive(Clone, Debug)]
struct Mount {
    path: String,
    tree: Tree,
    /// Where in the tree the mount begins; `""` for its root.
    sub_path: String,
    read_only: bool,
}

/// What a container sees: its own tree and what is mounted into it.
#[derive(Clone, Debug)]
pub(in crate::kubelet) struct Fs {
    mounts: Vec<Mount>,
}

/// Directories that every container has.
const DIRECTORIES: [&str; 16] = [
    "bin", "dev", "etc", "home", "lib", "mnt", "opt", "proc", "root", "run", "sbin", "sys", "tmp", "usr", "usr/bin",
    "var",
];

impl Fs {
    /// The file system of a fresh container.
    pub(in crate::kubelet) fn new(hostname: &str, now: Timestamp) -> Self {
        let tree = Tree::default();
        {
            let mut inner = tree.lock();
            for path in DIRECTORIES {
                inner.nodes.insert(path.into(), Node::Dir { modified: now });
            }
            for (path, text) in [
                ("etc/hostname", format!("{hostname}\n")),
                ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n".into()),
                ("etc/os-release", "NAME=\"Scripted Linux\"\nID=scripted\n".into()),
                ("dev/null", String::new()),
            ] {
                inner.nodes.insert(path.into(), Node::File { data: Arc::new(text.into_bytes()), modified: now });
            }
        }
        Self { mounts: vec![Mount { path: String::new(), tree, sub_path: String::new(), read_only: false }] }
    }

    /// Mounts a tree; its mount point is made.
    pub(in crate::kubelet) fn mount(
        &mut self,
        path: &str,
        tree: Tree,
        sub_path: &str,
        read_only: bool,
        now: Timestamp,
    ) {
        let path = normalize("/", path);
        if !sub_path.is_empty() {
            tree.lock().make_dirs(sub_path, now);
        }
        let root = self.mounts.first().expect("the root is always mounted");
        root.tree.lock().make_dirs(&path, now);
        self.mounts.push(Mount { path, tree, sub_path: sub_path.trim_matches('/').into(), read_only });
        self.mounts.sort_by_key(|mount| mount.path.len());
    }

    fn resolve(&self, path: &str) -> (&Mount, String) {
        let under = |mount: &&Mount| {
            mount.path.is_empty()
                || path == mount.path
                || path.strip_prefix(mount.path.as_str()).is_some_and(|rest| rest.starts_with('/'))
        };
        let mount = self.mounts.iter().rev().find(under).expect("the root is always mounted");
        let rest = path.strip_prefix(mount.path.as_str()).unwrap_or(path).trim_start_matches('/');
        let inner = match (mount.sub_path.as_str(), rest) {
            ("", rest) => rest.to_owned(),
            (sub, "") => sub.to_owned(),
            (sub, rest) => format!("{sub}/{rest}"),
        };
        (mount, inner)
    }

    /// What stands at an absolute path.
    pub(in crate::kubelet) fn stat(&self, path: &str) -> Result<Node, FsError> {
        let path = normalize("/", path);
        let (mount, inner) = self.resolve(&path);
        let tree = mount.tree.lock();
        tree.check_parents(&inner)?;
        if inner.is_empty() {
            return Ok(Node::Dir { modified: Timestamp::UNIX_EPOCH });
        }
        tree.nodes.get(&inner).cloned().ok_or(FsError::NotFound)
    }

    /// Whether a directory stands there.
    pub(in crate::kubelet) fn is_dir(&self, path: &str) -> bool {
        matches!(self.stat(path), Ok(Node::Dir { .. }))
    }

    /// What stands in a file.
    pub(in crate::kubelet) fn read(&self, path: &str) -> Result<Arc<Vec<u8>>, FsError> {
        match self.stat(path)? {
            Node::File { data, .. } => Ok(data),
            Node::Dir { .. } => Err(FsError::IsADirectory),
        }
    }

    /// Writes a file, or adds to it.
    pub(in crate::kubelet) fn write(
        &self,
        path: &str,
        data: &[u8],
        append: bool,
        now: Timestamp,
    ) -> Result<(), FsError> {
        let path = normalize("/", path);
        if path == "dev/null" {
            return Ok(());
        }
        let (mount, inner) = self.resolve(&path);
        if mount.read_only {
            return Err(FsError::ReadOnly);
        }
        let mut tree = mount.tree.lock();
        tree.check_parents(&inner)?;
        let mut old = match tree.nodes.get_mut(&inner) {
            Some(Node::Dir { .. }) => return Err(FsError::IsADirectory),
            None if inner.is_empty() => return Err(FsError::IsADirectory),
            Some(Node::File { data, .. }) => std::mem::take(data), // so that appending needs no copy
            None => Arc::default(),
        };
        let before = old.len();
        let content = Arc::make_mut(&mut old);
        if !append {
            content.clear();
        }
        let room = TREE_BYTES.saturating_sub(tree.bytes - before + content.len());
        let fits = data.len() <= room;
        content.extend_from_slice(&data[..data.len().min(room)]);
        tree.bytes = tree.bytes - before + old.len();
        tree.nodes.insert(inner, Node::File { data: old, modified: now });
        if fits { Ok(()) } else { Err(FsError::Full) }
    }

    /// Makes a directory; with `parents` also those above it, and it may be there already.
    pub(in crate::kubelet) fn make_dir(&self, path: &str, parents: bool, now: Timestamp) -> Result<(), FsError> {
        let path = normalize("/", path);
        let (mount, inner) = self.resolve(&path);
        let mut tree = mount.tree.lock();
        match tree.nodes.get(&inner) {
            Some(Node::File { .. }) => return Err(FsError::Exists),
            Some(Node::Dir { .. }) if parents => return Ok(()),
            Some(Node::Dir { .. }) => return Err(FsError::Exists),
            None if inner.is_empty() => return if parents { Ok(()) } else { Err(FsError::Exists) },
            None => {}
        }
        if mount.read_only {
            return Err(FsError::ReadOnly);
        }
        if parents {
            for (at, _) in inner.match_indices('/') {
                if matches!(tree.nodes.get(&inner[..at]), Some(Node::File { .. })) {
                    return Err(FsError::NotADirectory);
                }
            }
            tree.make_dirs(&inner, now);
        } else {
            tree.check_parents(&inner)?;
            tree.nodes.insert(inner, Node::Dir { modified: now });
        }
        Ok(())
    }

    /// Removes a file, or with `recursive` a whole directory; an empty directory needs `directories`.
    pub(in crate::kubelet) fn remove(&self, path: &str, recursive: bool, directories: bool) -> Result<(), FsError> {
        let path = normalize("/", path);
        if self.mounts.iter().any(|mount| mount.path == path) {
            return Err(FsError::Busy);
        }
        let (mount, inner) = self.resolve(&path);
        let mut tree = mount.tree.lock();
        tree.check_parents(&inner)?;
        let node = tree.nodes.get(&inner).ok_or(FsError::NotFound)?;
        let is_dir = matches!(node, Node::Dir { .. });
        let below: Vec<String> = tree.below(&inner).map(|(path, _)| path.clone()).collect();
        if is_dir && !recursive {
            if !directories {
                return Err(FsError::IsADirectory);
            }
            if !below.is_empty() {
                return Err(FsError::NotEmpty);
            }
        }
        if mount.read_only {
            return Err(FsError::ReadOnly);
        }
        for path in below.iter().chain([&inner]) {
            if let Some(Node::File { data, .. }) = tree.nodes.remove(path) {
                tree.bytes -= data.len();
            }
        }
        Ok(())
    }

    /// The names in a directory, sorted.
    pub(in crate::kubelet) fn list(&self, path: &str) -> Result<Vec<String>, FsError> {
        if let Node::File { .. } = self.stat(path)? {
            return Err(FsError::NotADirectory);
        }
        let path = normalize("/", path);
        let (mount, inner) = self.resolve(&path);
        let tree = mount.tree.lock();
        let skip = if inner.is_empty() { 0 } else { inner.len() + 1 };
        let names = tree.below(&inner).filter(|(path, _)| !path[skip..].contains('/'));
        Ok(names.map(|(path, _)| path[skip..].to_owned()).collect())
    }
}

impl Tree {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().expect("no panic under this lock")
    }

    /// A tree that holds these files, as a ConfigMap's volume does.
    pub(in crate::kubelet) fn of_files(files: impl IntoIterator<Item = (String, Vec<u8>)>, now: Timestamp) -> Self {
        let tree = Self::default();
        {
            let mut inner = tree.lock();
            for (path, data) in files {
                if let Some((parent, _)) = path.rsplit_once('/') {
                    inner.make_dirs(parent, now);
                }
                inner.bytes += data.len();
                inner.nodes.insert(path, Node::File { data: Arc::new(data), modified: now });
            }
        }
        tree
    }
}

impl Inner {
    fn make_dirs(&mut self, path: &str, now: Timestamp) {
        let path = path.trim_matches('/');
        for (at, _) in path.match_indices('/').chain([(path.len(), "")]) {
            self.nodes.entry(path[..at].to_owned()).or_insert(Node::Dir { modified: now });
        }
    }

    fn check_parents(&self, path: &str) -> Result<(), FsError> {
        for (at, _) in path.match_indices('/') {
            match self.nodes.get(&path[..at]) {
                Some(Node::Dir { .. }) => {}
                Some(Node::File { .. }) => return Err(FsError::NotADirectory),
                None => return Err(FsError::NotFound),
            }
        }
        Ok(())
    }

    fn below(&self, path: &str) -> impl Iterator<Item = (&String, &Node)> {
        let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        self.nodes.range(prefix.clone()..).take_while(move |(path, _)| path.starts_with(&prefix))
    }
}

/// A path made absolute from a working directory, without `.`, `..` and double slashes, and without its leading slash.
pub(in crate::kubelet) fn normalize(cwd: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let base = if path.starts_with('/') { "" } else { cwd };
    for part in base.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn fs() -> Fs {
        Fs::new("pod", NOW)
    }

    #[test]
    fn files_are_written_added_to_read_and_removed() {
        let fs = fs();
        fs.write("/tmp/a", b"one", false, NOW).unwrap();
        fs.write("/tmp/a", b"two", true, NOW).unwrap();
        assert_eq!(**fs.read("/tmp/../tmp/./a").unwrap(), *b"onetwo");
        fs.remove("/tmp/a", false, false).unwrap();
        assert_eq!(fs.read("/tmp/a"), Err(FsError::NotFound));
    }

    #[test]
    fn a_file_is_no_directory_and_a_directory_no_file() {
        let fs = fs();
        fs.write("/tmp/a", b"x", false, NOW).unwrap();
        assert_eq!(fs.write("/tmp/a/b", b"x", false, NOW), Err(FsError::NotADirectory));
        assert_eq!(fs.write("/tmp", b"x", false, NOW), Err(FsError::IsADirectory));
        assert_eq!(fs.write("/none/b", b"x", false, NOW), Err(FsError::NotFound));
        assert_eq!(fs.make_dir("/tmp/a/b", true, NOW), Err(FsError::NotADirectory));
        assert_eq!(fs.list("/tmp/a"), Err(FsError::NotADirectory));
    }

    #[test]
    fn a_shared_tree_shows_one_containers_file_to_the_other_at_its_sub_path() {
        let volume = Tree::default();
        let (mut one, mut other) = (fs(), fs());
        one.mount("/workspace", volume.clone(), "", false, NOW);
        other.mount("/data", volume, "sub", true, NOW);
        one.write("/workspace/sub/f", b"x", false, NOW).unwrap();
        assert_eq!(**other.read("/data/f").unwrap(), *b"x");
        assert_eq!(other.write("/data/g", b"x", false, NOW), Err(FsError::ReadOnly));
        assert!(one.list("/").unwrap().contains(&"workspace".to_owned()));
        assert_eq!(one.remove("/workspace", true, true), Err(FsError::Busy));
    }

    #[test]
    fn a_full_tree_takes_no_more_and_gives_back_what_is_removed() {
        let fs = fs();
        let data = vec![0; TREE_BYTES / 2];
        fs.write("/tmp/a", &data, false, NOW).unwrap();
        fs.write("/tmp/a", &data, false, NOW).unwrap();
        assert_eq!(fs.write("/tmp/b", &[&data[..], b"x"].concat(), false, NOW), Err(FsError::Full));
        fs.remove("/tmp/b", false, false).unwrap();
        fs.remove("/tmp/a", false, false).unwrap();
        fs.write("/tmp/b", &data, false, NOW).unwrap();
    }
}
