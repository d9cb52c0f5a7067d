//! `tar`, as far as files are copied with it: archives made and unpacked.

use std::io::{Cursor, Read};

use tar::{Archive, Builder, EntryType, Header};
use tokio::io::AsyncReadExt;

use super::{
    super::{Io, Shell, fs::Node},
    Failure,
};
use crate::base::limits;

/// Bytes of an archive; what a tree of files holds, and something for the heads.
const ARCHIVE_BYTES: u64 = 80 * 1024 * 1024;

impl Shell {
    pub(super) async fn tar(&self, arguments: &[String], io: &Io) -> Result<i32, Failure> {
        let (mut letters, mut file, mut folder, mut names) = (String::new(), None, self.cwd.clone(), Vec::new());
        let mut rest = arguments.iter();
        let mut first = true;
        while let Some(argument) = rest.next() {
            let found = match argument.strip_prefix('-') {
                Some("-") => {
                    names.extend(rest.by_ref().cloned());
                    break;
                }
                Some(long) if long.starts_with('-') => continue, // owners and modes are not kept
                Some(found) if !found.is_empty() => found,
                None if first => argument,
                _ => {
                    names.push(argument.clone());
                    continue;
                }
            };
            first = false;
            for letter in found.chars() {
                match letter {
                    'f' => file = rest.next().cloned(),
                    'C' => folder = rest.next().map(|name| self.path(name)).unwrap_or_default(),
                    letter => letters.push(letter),
                }
            }
        }
        let file = file.filter(|file| file != "-");
        if !self.fs.is_dir(&folder) {
            return Err(Failure(format!("{folder}: Cannot open: No such file or directory"), 2));
        }
        if letters.contains('z') || letters.contains('j') {
            return Err(Failure("compressed archives are not known here".into(), 2));
        }
        if letters.contains('c') {
            if names.is_empty() {
                return Err(Failure("Cowardly refusing to create an empty archive".into(), 2));
            }
            return self.pack(file.as_deref(), &folder, &names, io).await;
        }
        if !letters.contains('x') && !letters.contains('t') {
            let text = "You must specify one of the '-Acdtrux', '--delete' or '--test-label' options";
            return Err(Failure(text.into(), 2));
        }
        let source = self.source(file.as_deref().unwrap_or("-"), io)?;
        let mut data = Vec::new();
        let mut source = source.lock().await;
        let read = (&mut *source).take(ARCHIVE_BYTES).read_to_end(&mut data).await;
        drop(source);
        read.map_err(|error| error.to_string())?;
        self.unpack(&data, &folder, letters.contains('t'), io).await
    }

    async fn pack(&self, file: Option<&str>, folder: &str, names: &[String], io: &Io) -> Result<i32, Failure> {
        let mut status = 0;
        let mut archive = Builder::new(Vec::new());
        for name in names {
            let full = format!("/{}", super::super::fs::normalize(folder, name));
            let shown = name.trim_start_matches('/').trim_end_matches('/');
            if shown.len() < name.trim_end_matches('/').len() {
                self.complain(io, "tar: Removing leading `/' from member names").await;
            }
            let mut waiting = vec![(full, shown.to_owned())];
            if self.fs.stat(&waiting[0].0).is_err() {
                self.complain(io, &format!("tar: {name}: Cannot stat: No such file or directory")).await;
                status = 2;
                continue;
            }
            while let Some((path, shown)) = waiting.pop() {
                let mut header = Header::new_gnu();
                let shown = if shown.is_empty() { ".".to_owned() } else { shown };
                let packed = match self.fs.stat(&path) {
                    Err(_) => continue, // removed meanwhile
                    Ok(Node::Dir { modified }) => {
                        let children = self.fs.list(&path).unwrap_or_default();
                        for child in children.into_iter().rev() {
                            waiting
                                .push((format!("{}/{child}", path.trim_end_matches('/')), format!("{shown}/{child}")));
                        }
                        header.set_entry_type(EntryType::Directory);
                        header.set_mode(0o755);
                        header.set_size(0);
                        header.set_mtime(modified.as_second().unsigned_abs());
                        archive.append_data(&mut header, format!("{shown}/"), &b""[..])
                    }
                    Ok(Node::File { data, modified }) => {
                        header.set_mode(0o644);
                        header.set_size(data.len() as u64);
                        header.set_mtime(modified.as_second().unsigned_abs());
                        archive.append_data(&mut header, &shown, &data[..])
                    }
                };
                packed.map_err(|error| error.to_string())?;
            }
        }
        let bytes = archive.into_inner().map_err(|error| error.to_string())?;
        match file {
            Some(file) => {
                let made = self.fs.write(&self.path(file), &bytes, false, self.host.clock.now());
                made.map_err(|error| format!("{file}: Cannot open: {error}"))?;
            }
            None => {
                for piece in bytes.chunks(limits::STREAM_BYTES) {
                    self.write(&io.stdout, piece).await?;
                }
            }
        }
        if status != 0 {
            self.complain(io, "tar: Exiting with failure status due to previous errors").await;
        }
        Ok(status)
    }

    async fn unpack(&self, data: &[u8], folder: &str, list: bool, io: &Io) -> Result<i32, Failure> {
        let broken = |error: std::io::Error| Failure(format!("This does not look like a tar archive: {error}"), 2);
        if data.is_empty() {
            return Err(Failure("This does not look like a tar archive".into(), 2));
        }
        // Read whole before anything waits: an archive's reader cannot be kept over a wait.
        let mut members = Vec::new();
        let mut archive = Archive::new(Cursor::new(data));
        for entry in archive.entries().map_err(broken)? {
            let mut entry = entry.map_err(broken)?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            match entry.header().entry_type() {
                EntryType::Directory => members.push((name, None)),
                EntryType::Regular | EntryType::Continuous => {
                    let mut content = Vec::new();
                    entry.read_to_end(&mut content).map_err(broken)?;
                    members.push((name, Some(content)));
                }
                _ => {} // links and devices: there are none here
            }
        }
        let now = self.host.clock.now();
        let mut status = 0;
        for (name, content) in members {
            if list {
                self.write(&io.stdout, format!("{name}\n").as_bytes()).await?;
                continue;
            }
            if name.split('/').any(|part| part == "..") {
                self.complain(io, &format!("tar: {name}: Member name contains '..'")).await;
                status = 2;
                continue;
            }
            let path = format!("/{}", super::super::fs::normalize(folder, name.trim_start_matches('/')));
            let made = match &content {
                None => self.fs.make_dir(&path, true, now),
                Some(content) => {
                    let parent =
                        path.rsplit_once('/').map_or("/", |(parent, _)| if parent.is_empty() { "/" } else { parent });
                    self.fs.make_dir(parent, true, now).and_then(|()| self.fs.write(&path, content, false, now))
                }
            };
            if let Err(error) = made {
                self.complain(io, &format!("tar: {name}: Cannot open: {error}")).await;
                status = 2;
            }
        }
        Ok(status)
    }
}
