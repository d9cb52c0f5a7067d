//! Which files a client of the API may name.

use std::path::{Component, Path, PathBuf};

use crate::{Code, Error};

/// Bytes of a kubeconfig at most.
const MAX_KUBECONFIG_BYTES: u64 = 1024 * 1024;

/// Where kubeconfigs may lie, beside the home folder.
const FOLDERS: [&str; 2] = ["/etc/kubernetes", "/var/run/secrets/kubernetes.io"];

/// The path of a kubeconfig that a client of the API names, if it may: `~/` is the home folder, and what it comes to,
/// links followed, must lie below the home folder or where clusters put theirs.
///
/// # Errors
/// [`Code::InvalidKubeconfigPath`] if it may not, [`Code::KubeconfigNotFound`] if there is no such file.
pub(crate) fn kubeconfig(text: &str, home: Option<&Path>) -> Result<PathBuf, Error> {
    let refuse = |why: &str| {
        let message =
            format!("the kubeconfig path {text:?} {why}: it must lie below the home folder, {}", FOLDERS.join(" or "));
        Error::new(Code::InvalidKubeconfigPath, message)
    };
    let path = match (text.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => home.join(rest),
        (Some(_), None) => return Err(refuse("is below a home folder that is not known")),
        (None, _) => PathBuf::from(text),
    };
    if !path.is_absolute() {
        return Err(refuse("is not absolute"));
    }
    if path.components().any(|part| part == Component::ParentDir) || text.contains('\0') {
        return Err(refuse("has a '..' in it"));
    }
    // A home that is the root of everything would allow everything.
    let home = home.filter(|home| home.components().count() > 1).map(Path::to_owned);
    let folders: Vec<PathBuf> = FOLDERS.iter().map(PathBuf::from).chain(home).collect();
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let below = |path: &Path, folders: &[PathBuf]| folders.iter().any(|folder| path.starts_with(folder));
    if !below(&path, &folders) {
        return Err(refuse("is elsewhere"));
    }
    let not_there =
        || Error::new(Code::KubeconfigNotFound, format!("there is no kubeconfig {text}")).with("path", text);
    let found = path.canonicalize().map_err(|_| not_there())?;
    let folders: Vec<PathBuf> = folders.iter().map(|folder| real(folder)).collect();
    if !below(&found, &folders) {
        return Err(refuse("leads elsewhere"));
    }
    let about = found.metadata().map_err(|_| not_there())?;
    if !about.is_file() || about.len() > MAX_KUBECONFIG_BYTES {
        return Err(refuse("is no file of a kubeconfig's size"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use rstest::rstest;

    use super::*;

    struct Home {
        folder: tempfile::TempDir,
    }

    impl Home {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let home = folder.path().join("home");
            fs::create_dir_all(home.join(".kube")).unwrap();
            fs::create_dir_all(folder.path().join("home2")).unwrap();
            fs::write(home.join(".kube/config"), "x").unwrap();
            fs::write(folder.path().join("home2/config"), "x").unwrap();
            symlink(folder.path().join("home2/config"), home.join("out")).unwrap();
            symlink(home.join(".kube/config"), home.join("in")).unwrap();
            Self { folder }
        }

        fn check(&self, text: &str) -> Result<PathBuf, Code> {
            let text = text.replace("HOME", &self.home().to_string_lossy());
            kubeconfig(&text, Some(&self.home())).map_err(|error| error.code())
        }

        fn home(&self) -> PathBuf {
            self.folder.path().join("home")
        }
    }

    #[rstest]
    #[case::tilde("~/.kube/config", None)]
    #[case::absolute("HOME/.kube/config", None)]
    #[case::link_inside("~/in", None)]
    #[case::not_there("~/.kube/none", Some(Code::KubeconfigNotFound))]
    #[case::not_there_either("/etc/kubernetes/none.conf", Some(Code::KubeconfigNotFound))]
    #[case::parent("~/../home2/config", Some(Code::InvalidKubeconfigPath))]
    #[case::parent_that_comes_back("HOME/.kube/../.kube/config", Some(Code::InvalidKubeconfigPath))]
    #[case::same_beginning("HOME2/config", Some(Code::InvalidKubeconfigPath))]
    #[case::beginning_of_a_name("/etc/kubernetes-evil/config", Some(Code::InvalidKubeconfigPath))]
    #[case::link_outside("~/out", Some(Code::InvalidKubeconfigPath))]
    #[case::relative(".kube/config", Some(Code::InvalidKubeconfigPath))]
    #[case::of_another("~root/.kube/config", Some(Code::InvalidKubeconfigPath))]
    #[case::elsewhere("/etc/passwd", Some(Code::InvalidKubeconfigPath))]
    #[case::folder("~/.kube", Some(Code::InvalidKubeconfigPath))]
    fn a_kubeconfig_lies_where_kubeconfigs_lie(#[case] text: &str, #[case] wanted: Option<Code>) {
        let home = Home::new();
        let text = text.replace("HOME2", &home.folder.path().join("home2").to_string_lossy());
        assert_eq!(home.check(&text).err(), wanted, "{text}");
    }

    #[test]
    fn a_home_that_is_the_root_opens_nothing() {
        let error = kubeconfig("/etc/passwd", Some(Path::new("/"))).unwrap_err();
        assert_eq!(error.code(), Code::InvalidKubeconfigPath);
    }
}
