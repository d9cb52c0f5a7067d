//! Files and folders into a sandbox and out of it, as a tar stream over a command's input or output.

use std::{
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use tokio::io::AsyncWriteExt;
use tokio_util::io::SyncIoBridge;

use crate::{
    error::{CopyError, ExecError, ObjectName},
    exec::{ExecOptions, Output, Signal},
    sandboxes::AgentSandboxClient,
};

/// What lies between the side that works with files and the side that works with the connection.
const PIPE_BYTES: usize = 64 << 10;

/// How much of what tar complains is kept.
const COMPLAINT_BYTES: usize = 4 << 10;

impl AgentSandboxClient {
    /// Copies a file or folder of this machine into a folder of the sandbox, which must exist; a folder with all that it
    /// holds. Nothing is kept in memory. Needs `sh` and `tar` in the container.
    ///
    /// Symbolic links are copied as links. What was copied when something fails stays there.
    ///
    /// # Errors
    /// [`CopyError::CommandFailed`], [`CopyError::LocalFailed`] for this machine's files, [`CopyError::RemoteFailed`] with
    /// what tar said in the sandbox.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), agent_sandbox_sdk::CopyError> {
    /// client.copy_in("hello", "project", "/workspace").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn copy_in(&self, name: &str, local: impl AsRef<Path>, folder: &str) -> Result<(), CopyError> {
        let local = local.as_ref().to_owned();
        let failed = |source| CopyError::LocalFailed { path: local.clone(), source };
        let broken = broken(self.name_of(name), folder);
        tokio::fs::symlink_metadata(&local).await.map_err(failed)?;
        let started = self.start(name, ["tar", "-xf", "-", "-C", folder], ExecOptions::default()).await;
        let mut running = started.map_err(&broken)?;
        let mut stdin = running.stdin().expect("it was asked for, and taken by nobody else");
        let (mut read, write) = tokio::io::duplex(PIPE_BYTES);
        let source = local.clone();
        let packing = tokio::task::spawn_blocking(move || pack(&source, SyncIoBridge::new(write)));
        let send = async {
            // What tar does not take, it tells in its status.
            let sent = tokio::io::copy(&mut read, &mut stdin).await;
            drop(read);
            let packed = packing.await.map_err(io::Error::other).flatten();
            if sent.is_ok() && packed.is_ok() {
                let _ = stdin.shutdown().await;
            }
            (sent, packed)
        };
        let mut complaint = Vec::new();
        let listen = async {
            while let Some(written) = running.next().await? {
                keep_complaint(&mut complaint, written);
            }
            Ok::<_, ExecError>(())
        };
        let ((_sent, packed), heard) = tokio::select! {
            biased;
            // tar has ended before its input: the rest of it goes nowhere.
            heard = listen => ((Ok(0), Ok(())), heard),
            sent = send => (sent, Ok(())),
        };
        heard.map_err(&broken)?;
        if let Err(source) = packed {
            // Without the end of its input tar would wait for ever.
            let _ = running.kill(Signal::Term).await;
            return Err(CopyError::LocalFailed { path: local, source });
        }
        while let Some(written) = running.next().await.map_err(&broken)? {
            keep_complaint(&mut complaint, written);
        }
        let exit_code = running.wait().await.map_err(broken)?.exit_code;
        ended(exit_code, self.name_of(name), folder, &complaint)
    }

    /// Copies a file or folder of the sandbox into a folder of this machine, which is made if it is not there. At most
    /// `limit_bytes` are taken: what runs in a sandbox is not to fill the disk. Needs `sh` and `tar` in the container.
    ///
    /// Nothing is written outside the folder, whatever the sandbox sends. What was copied when something fails stays
    /// there.
    ///
    /// # Errors
    /// As [`copy_in`](Self::copy_in), and [`CopyError::TooLong`].
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), agent_sandbox_sdk::CopyError> {
    /// client.copy_out("hello", "/workspace/results", "results", 100 << 20).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn copy_out(
        &self,
        name: &str,
        path: &str,
        folder: impl AsRef<Path>,
        limit_bytes: u64,
    ) -> Result<(), CopyError> {
        let object = self.name_of(name);
        let broken = broken(object.clone(), path);
        let folder: PathBuf = folder.as_ref().to_owned();
        let (parent, last) = split(path);
        let command = ["tar", "-cf", "-", "-C", parent, "--", last];
        let mut running = self.start(name, command, ExecOptions::default()).await.map_err(&broken)?;
        drop(running.stdin());
        let (read, mut write) = tokio::io::duplex(PIPE_BYTES);
        let into = folder.clone();
        let unpacking = tokio::task::spawn_blocking(move || unpack(SyncIoBridge::new(read), &into));
        let (mut complaint, mut taken) = (Vec::new(), 0_u64);
        let outcome = loop {
            match running.next().await {
                Ok(Some(Output::Stdout(bytes))) => {
                    taken += bytes.len() as u64;
                    if taken > limit_bytes {
                        break Err(CopyError::TooLong { object: object.clone(), path: path.into(), limit_bytes });
                    }
                    if write.write_all(&bytes).await.is_err() {
                        break Ok(()); // unpacking has failed, and says why
                    }
                }
                Ok(Some(written)) => keep_complaint(&mut complaint, written),
                Ok(None) => break Ok(()),
                Err(error) => break Err(broken(error)),
            }
        };
        drop(write);
        let unpacked = unpacking.await.map_err(io::Error::other).flatten();
        if outcome.is_err() || unpacked.is_err() {
            let _ = running.kill(Signal::Term).await;
        }
        outcome?;
        if !complaint.is_empty() || unpacked.is_ok() {
            let exit_code = running.wait().await.map_err(broken)?.exit_code;
            ended(exit_code, object, path, &complaint)?;
        }
        unpacked.map_err(|source| CopyError::LocalFailed { path: folder, source })
    }
}

/// That the command of a copy came to nothing.
fn broken(object: ObjectName, path: &str) -> impl Fn(ExecError) -> CopyError {
    move |source| CopyError::CommandFailed { object: object.clone(), path: path.into(), source: Box::new(source) }
}

fn keep_complaint(complaint: &mut Vec<u8>, written: Output) {
    if let Output::Stderr(bytes) = written {
        let room = COMPLAINT_BYTES.saturating_sub(complaint.len());
        complaint.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

fn ended(exit_code: i32, object: ObjectName, path: &str, complaint: &[u8]) -> Result<(), CopyError> {
    if exit_code == 0 {
        return Ok(());
    }
    let said = String::from_utf8_lossy(complaint).trim().to_owned();
    let message = if said.is_empty() { format!("tar ended with exit code {exit_code}") } else { said };
    Err(CopyError::RemoteFailed { object, path: path.into(), message })
}

/// A path's folder and its last name.
fn split(path: &str) -> (&str, &str) {
    let path = if path.len() > 1 { path.trim_end_matches('/') } else { path };
    match path.rsplit_once('/') {
        Some(("", "")) => ("/", "."),
        Some(("", last)) => ("/", last),
        Some((parent, last)) => (parent, last),
        None => (".", path),
    }
}

/// Writes a file or folder by its own name.
fn pack(source: &Path, into: impl Write) -> io::Result<()> {
    let whole = source.canonicalize()?;
    let name = whole.file_name().map_or_else(|| PathBuf::from("."), PathBuf::from);
    let mut archive = tar::Builder::new(into);
    archive.follow_symlinks(false);
    if whole.is_dir() {
        archive.append_dir_all(name, &whole)?;
    } else {
        archive.append_path_with_name(&whole, name)?;
    }
    archive.into_inner()?.flush()
}

/// Writes what an archive holds below a folder, and nothing beside it.
fn unpack(from: impl Read, into: &Path) -> io::Result<()> {
    std::fs::create_dir_all(into)?;
    let mut archive = tar::Archive::new(from);
    // Owners and special bits of a sandbox mean nothing here.
    archive.set_preserve_permissions(false);
    archive.set_unpack_xattrs(false);
    archive.unpack(into)?;
    // The padding behind an archive's end is read, so that its writer is not cut off.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map(|_| ())
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("/a/b/c", "/a/b", "c")]
    #[case("/a/b/", "/a", "b")]
    #[case("/a", "/", "a")]
    #[case("/", "/", ".")]
    #[case("a", ".", "a")]
    #[case("a/b", "a", "b")]
    fn a_path_is_split_into_its_folder_and_its_name(#[case] path: &str, #[case] parent: &str, #[case] last: &str) {
        assert_eq!(split(path), (parent, last));
    }

    #[test]
    fn what_is_packed_is_what_another_tar_unpacks_and_the_other_way_round() {
        let folder = tempfile::tempdir().unwrap();
        let (source, there, back) =
            (folder.path().join("päck"), folder.path().join("there"), folder.path().join("back"));
        let deep = source.join("d".repeat(120)).join("e".repeat(120));
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("f"), [0, 159, 146, 150]).unwrap();
        fs::write(source.join("empty"), "").unwrap();
        std::os::unix::fs::symlink("empty", source.join("link")).unwrap();
        let archive = folder.path().join("a.tar");
        pack(&source, fs::File::create(&archive).unwrap()).unwrap();
        fs::create_dir(&there).unwrap();
        assert!(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&there).status().unwrap().success());
        let packed = Command::new("tar").args(["-cf", "-", "-C"]).arg(&there).args(["--", "päck"]).output().unwrap();
        unpack(packed.stdout.as_slice(), &back).unwrap();
        assert!(Command::new("diff").arg("-r").arg(&source).arg(back.join("päck")).status().unwrap().success());
        assert_eq!(fs::read_link(back.join("päck/link")).unwrap(), Path::new("empty"));
    }

    #[test]
    fn an_archive_that_climbs_out_writes_nothing_outside() {
        let folder = tempfile::tempdir().unwrap();
        let into = folder.path().join("into");
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        header.set_mode(0o644);
        header.as_mut_bytes()[..9].copy_from_slice(b"../escape");
        header.set_cksum();
        archive.append(&header, &b"x"[..]).unwrap();
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        archive.append_link(&mut link, "out", "..").unwrap();
        let mut through = tar::Header::new_gnu();
        through.set_size(1);
        through.set_mode(0o644);
        archive.append_data(&mut through, "out/escape", &b"x"[..]).unwrap();
        let bytes = archive.into_inner().unwrap();
        let _ = unpack(bytes.as_slice(), &into);
        assert!(!folder.path().join("escape").exists());
    }
}
