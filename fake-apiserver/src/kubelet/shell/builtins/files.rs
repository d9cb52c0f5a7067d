//! Commands on files: `cat`, `tee`, `ls`, `mkdir`, `rm`, `cp` and such.

use tokio::io::AsyncReadExt;

use super::{
    super::{
        In, Io, Shell,
        fs::{FsError, Node},
    },
    Failure, options,
};

impl Shell {
    pub(super) async fn cat(&self, arguments: &[String], io: &Io) -> Result<i32, Failure> {
        let (_, names) = options(arguments);
        let stdin = ["-".to_owned()];
        let mut status = 0;
        for name in if names.is_empty() { &stdin } else { names } {
            match self.source(name, io) {
                Ok(source) => self.copy(&source, io).await?,
                Err(error) => {
                    self.complain(io, &format!("cat: {error}")).await;
                    status = 1;
                }
            }
        }
        Ok(status)
    }

    async fn copy(&self, source: &In, io: &Io) -> Result<(), String> {
        loop {
            let mut chunk = vec![0; 16 * 1024];
            let count = source.lock().await.read(&mut chunk).await.unwrap_or(0);
            if count == 0 {
                return Ok(());
            }
            self.write(&io.stdout, &chunk[..count]).await?;
        }
    }

    pub(super) async fn tee(&self, arguments: &[String], io: &Io) -> Result<i32, Failure> {
        let (letters, names) = options(arguments);
        for name in names.iter().filter(|_| !letters.contains('a')) {
            let made = self.fs.write(&self.path(name), b"", false, self.host.clock.now());
            made.map_err(|error| format!("{name}: {error}"))?;
        }
        loop {
            let mut chunk = vec![0; 16 * 1024];
            let count = io.stdin.lock().await.read(&mut chunk).await.unwrap_or(0);
            if count == 0 {
                return Ok(0);
            }
            self.write(&io.stdout, &chunk[..count]).await?;
            for name in names {
                let written = self.fs.write(&self.path(name), &chunk[..count], true, self.host.clock.now());
                written.map_err(|error| format!("{name}: {error}"))?;
            }
        }
    }

    pub(super) fn files(&self, name: &str, arguments: &[String]) -> Result<i32, Failure> {
        let (letters, paths) = options(arguments);
        let now = self.host.clock.now();
        let fail = |verb: &str, path: &str, error: FsError| Failure(format!("{verb} '{path}': {error}"), 1);
        if paths.is_empty() && !letters.contains('f') {
            return Err("missing operand".to_owned().into());
        }
        match name {
            "touch" => {
                for path in paths.iter().filter(|path| !self.fs.is_dir(&self.path(path))) {
                    let touched = self.fs.write(&self.path(path), b"", true, now);
                    touched.map_err(|error| fail("cannot touch", path, error))?;
                }
            }
            "mkdir" => {
                for path in paths {
                    let made = self.fs.make_dir(&self.path(path), letters.contains('p'), now);
                    made.map_err(|error| fail("cannot create directory", path, error))?;
                }
            }
            "rmdir" => {
                for path in paths {
                    if !self.fs.is_dir(&self.path(path)) && self.fs.stat(&self.path(path)).is_ok() {
                        return Err(fail("failed to remove", path, FsError::NotADirectory));
                    }
                    let removed = self.fs.remove(&self.path(path), false, true);
                    removed.map_err(|error| fail("failed to remove", path, error))?;
                }
            }
            "rm" => {
                let recursive = letters.contains(['r', 'R']);
                for path in paths {
                    match self.fs.remove(&self.path(path), recursive, letters.contains('d')) {
                        Ok(()) => {}
                        Err(FsError::NotFound) if letters.contains('f') => {}
                        Err(error) => return Err(fail("cannot remove", path, error)),
                    }
                }
            }
            _ => {
                let Some((target, sources)) = paths.split_last().filter(|(_, sources)| !sources.is_empty()) else {
                    return Err("missing destination file operand".to_owned().into());
                };
                for source in sources {
                    let from = self.path(source);
                    let mut to = self.path(target);
                    if self.fs.is_dir(&to) {
                        to = format!("{to}/{}", from.rsplit('/').next().unwrap_or_default());
                    }
                    if self.fs.is_dir(&from) && name == "cp" && !letters.contains(['r', 'R', 'a']) {
                        return Err(format!("-r not specified; omitting directory '{source}'").into());
                    }
                    if format!("{to}/").starts_with(&format!("{from}/")) {
                        return Err(format!("cannot copy '{source}' into itself, '{target}'").into());
                    }
                    self.copy_tree(&from, &to).map_err(|error| fail("cannot stat", source, error))?;
                    if name == "mv" {
                        let removed = self.fs.remove(&from, true, true);
                        removed.map_err(|error| fail("cannot remove", source, error))?;
                    }
                }
            }
        }
        Ok(0)
    }

    fn copy_tree(&self, from: &str, to: &str) -> Result<(), FsError> {
        let now = self.host.clock.now();
        match self.fs.stat(from)? {
            Node::File { data, .. } => self.fs.write(to, &data, false, now),
            Node::Dir { .. } => {
                self.fs.make_dir(to, true, now)?;
                for name in self.fs.list(from)? {
                    self.copy_tree(&format!("{from}/{name}"), &format!("{to}/{name}"))?;
                }
                Ok(())
            }
        }
    }

    pub(super) async fn ls(&self, arguments: &[String], io: &Io) -> Result<i32, Failure> {
        let (letters, paths) = options(arguments);
        let here = [".".to_owned()];
        let paths = if paths.is_empty() { &here } else { paths };
        let mut status = 0;
        let mut text = String::new();
        for (at, path) in paths.iter().enumerate() {
            let full = self.path(path);
            let names = match self.fs.stat(&full) {
                Ok(Node::Dir { .. }) if !letters.contains('d') => self.fs.list(&full).unwrap_or_default(),
                Ok(_) => {
                    self.line(&mut text, path, &full, letters.contains('l'));
                    continue;
                }
                Err(error) => {
                    self.complain(io, &format!("ls: cannot access '{path}': {error}")).await;
                    status = 2;
                    continue;
                }
            };
            if paths.len() > 1 {
                text.push_str(&format!("{}{path}:\n", if at > 0 { "\n" } else { "" }));
            }
            if letters.contains('l') {
                text.push_str("total 0\n");
            }
            let dots = if letters.contains('a') { &[".", ".."][..] } else { &[] };
            for dot in dots {
                self.line(&mut text, dot, &full, letters.contains('l'));
            }
            for name in names.iter().filter(|name| letters.contains(['a', 'A']) || !name.starts_with('.')) {
                self.line(&mut text, name, &format!("{full}/{name}"), letters.contains('l'));
            }
        }
        self.write(&io.stdout, text.as_bytes()).await?;
        Ok(status)
    }

    fn line(&self, text: &mut String, name: &str, path: &str, long: bool) {
        if long {
            let (mode, size, modified) = match self.fs.stat(path) {
                Ok(Node::File { data, modified }) => ("-rw-r--r--", data.len(), modified),
                Ok(Node::Dir { modified }) => ("drwxr-xr-x", 4096, modified),
                Err(_) => ("??????????", 0, self.host.clock.now()),
            };
            text.push_str(&format!("{mode} 1 root root {size:>8} {} ", modified.strftime("%b %e %H:%M")));
        }
        text.push_str(name);
        text.push('\n');
    }
}
