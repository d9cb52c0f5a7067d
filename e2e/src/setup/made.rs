//! What `minikube-up` has made for a profile, so that `minikube-down` takes down that and nothing else. Written before a thing
//! is made: who is killed in between leaves a note of something that is not there, which harms nobody.

use std::{
    fs,
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use semver::Version;

/// Something that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Thing {
    /// minikube's machine.
    Cluster,
    /// The controller of a release.
    Controller(Version),
    /// The objects of the manifests in a folder.
    Manifests(PathBuf),
}

impl Thing {
    fn line(&self) -> String {
        match self {
            Self::Cluster => "cluster".into(),
            Self::Controller(release) => format!("controller {release}"),
            Self::Manifests(folder) => format!("manifests {}", folder.display()),
        }
    }

    fn read(line: &str) -> Option<Self> {
        match line.split_once(' ') {
            None => (line == "cluster").then_some(Self::Cluster),
            Some(("controller", release)) => release.parse().ok().map(Self::Controller),
            Some(("manifests", folder)) => Some(Self::Manifests(folder.into())),
            Some(_) => None,
        }
    }
}

/// The notes of a profile.
#[derive(Debug)]
pub(super) struct Made {
    file: PathBuf,
    things: Vec<Thing>,
}

impl Made {
    /// Reads them.
    pub(super) fn of(profile: &str) -> Result<Self> {
        // A profile's name is minikube's to judge; as a file it must not lead elsewhere.
        let name: String =
            profile.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
        Self::at(&super::notes()?.join(name))
    }

    fn at(file: &Path) -> Result<Self> {
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
        };
        Ok(Self { file: file.to_owned(), things: text.lines().filter_map(Thing::read).collect() })
    }

    /// Notes a thing that is about to be made.
    pub(super) fn note(&self, thing: Thing) -> Result<()> {
        if self.things.contains(&thing) {
            return Ok(());
        }
        let write = || {
            fs::create_dir_all(self.file.parent().unwrap_or(Path::new(".")))?;
            let mut file = fs::OpenOptions::new().append(true).create(true).open(&self.file)?;
            writeln!(file, "{}", thing.line())
        };
        write().with_context(|| format!("cannot write {}", self.file.display()))
    }

    pub(super) fn any(&self) -> bool {
        !self.things.is_empty()
    }

    pub(super) fn has_cluster(&self) -> bool {
        self.things.contains(&Thing::Cluster)
    }

    pub(super) fn controller(&self) -> Option<&Version> {
        self.things.iter().rev().find_map(|thing| match thing {
            Thing::Controller(release) => Some(release),
            Thing::Cluster | Thing::Manifests(_) => None,
        })
    }

    pub(super) fn manifests(&self) -> Option<&Path> {
        self.things.iter().rev().find_map(|thing| match thing {
            Thing::Manifests(folder) => Some(folder.as_path()),
            Thing::Cluster | Thing::Controller(_) => None,
        })
    }

    /// Throws the notes away.
    pub(super) fn forget(&self) -> Result<()> {
        match fs::remove_file(&self.file) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", self.file.display()))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_read_until_it_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state/profile");
        let things = [Thing::Cluster, Thing::Controller(Version::new(0, 5, 6)), Thing::Manifests("/a folder/m".into())];
        for thing in &things {
            Made::at(&file).unwrap().note(thing.clone()).unwrap();
            Made::at(&file).unwrap().note(thing.clone()).unwrap(); // once is enough
        }
        let read = Made::at(&file).unwrap();
        assert_eq!(read.things, things);
        assert_eq!(read.manifests(), Some(Path::new("/a folder/m")));
        read.forget().unwrap();
        assert!(!Made::at(&file).unwrap().any());
    }
}
