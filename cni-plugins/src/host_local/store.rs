//! Reservations as files, laid out as the reference plugin does: `DATA/NETWORK/ADDRESS` holds the container and the
//! interface, `last_reserved_ip.N` the address that was last handed out of range set N, `lock` is locked by the user.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::error::{Error, Result};
use crate::types::Attachment;

/// The reservations of one network.
pub struct Store {
    folder: PathBuf,
}

/// The reservations while no other process can change them.
pub struct Locked {
    folder: PathBuf,
    _lock: Flock<File>,
}

impl Store {
    /// The reservations of `network` below `data_dir`. Nothing is created yet.
    pub fn new(data_dir: &Path, network: &str) -> Self {
        Self { folder: data_dir.join(network) }
    }

    /// Waits for the lock. The folder is created.
    pub fn lock(&self) -> Result<Locked> {
        fs::create_dir_all(&self.folder).map_err(|e| Error::io("create", &self.folder, &e))?;
        let path = self.folder.join("lock");
        let options = File::options().create(true).truncate(false).write(true).open(&path);
        let file = options.map_err(|e| Error::io("open", &path, &e))?;
        let lock = Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, errno)| Error::io("lock", &path, &io::Error::from(errno)))?;
        Ok(Locked { folder: self.folder.clone(), _lock: lock })
    }

    /// Waits for the lock, unless nothing was ever reserved here.
    pub fn lock_existing(&self) -> Result<Option<Locked>> {
        if self.folder.is_dir() { self.lock().map(Some) } else { Ok(None) }
    }
}

impl Locked {
    /// Reserves `ip`. Returns false when it is reserved already.
    pub fn reserve(&self, ip: IpAddr, attachment: &Attachment) -> Result<bool> {
        let path = self.folder.join(ip.to_string());
        let mut file = match File::create_new(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            Err(e) => return Err(Error::io("create", &path, &e)),
        };
        if let Err(e) = file.write_all(contents(attachment).as_bytes()) {
            // A reservation of nobody's would never be released.
            let _ = fs::remove_file(&path);
            return Err(Error::io("write", &path, &e));
        }
        Ok(true)
    }

    /// Whether the attachment has an address.
    pub fn holds(&self, attachment: &Attachment) -> Result<bool> {
        let wanted = contents(attachment);
        Ok(self.reservations()?.iter().any(|(_, text)| *text == wanted))
    }

    /// Releases the attachment's addresses.
    pub fn release(&self, attachment: &Attachment) -> Result<()> {
        let wanted = contents(attachment);
        self.remove(|text| text == wanted)
    }

    /// Releases all addresses but those of `valid`.
    pub fn retain(&self, valid: &[Attachment]) -> Result<()> {
        let valid: Vec<_> = valid.iter().map(contents).collect();
        self.remove(|text| !valid.iter().any(|valid| valid == text))
    }

    fn remove(&self, stale: impl Fn(&str) -> bool) -> Result<()> {
        for (path, text) in self.reservations()? {
            if stale(&text) {
                fs::remove_file(&path).map_err(|e| Error::io("remove", &path, &e))?;
            }
        }
        Ok(())
    }

    fn reservations(&self) -> Result<Vec<(PathBuf, String)>> {
        let fail = |e: io::Error| Error::io("read", &self.folder, &e);
        let mut reservations = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            if entry.file_name().to_str().is_some_and(|name| name.parse::<IpAddr>().is_ok()) {
                let text = fs::read_to_string(entry.path()).map_err(|e| Error::io("read", &entry.path(), &e))?;
                reservations.push((entry.path(), text.trim_end().to_owned()));
            }
        }
        Ok(reservations)
    }

    /// The address that was last handed out of range set `index`.
    pub fn last_reserved(&self, index: usize) -> Option<IpAddr> {
        fs::read_to_string(self.last_reserved_path(index)).ok()?.trim().parse().ok()
    }

    /// Remembers the address that was handed out of range set `index`.
    pub fn set_last_reserved(&self, index: usize, ip: IpAddr) -> Result<()> {
        let path = self.last_reserved_path(index);
        // Not emptied first: ext4 would give the block back, take another, and begin to write it out.
        let write = |text: String| {
            let mut file = File::options().create(true).truncate(false).write(true).open(&path)?;
            file.write_all(text.as_bytes())?;
            file.set_len(text.len() as u64)
        };
        write(ip.to_string()).map_err(|e| Error::io("write", &path, &e))
    }

    fn last_reserved_path(&self, index: usize) -> PathBuf {
        self.folder.join(format!("last_reserved_ip.{index}"))
    }
}

fn contents(attachment: &Attachment) -> String {
    format!("{}\r\n{}", attachment.container, attachment.interface)
}
