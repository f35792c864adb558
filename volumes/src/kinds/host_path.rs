//! `hostPath`: a path of the node, checked or made as its type says (pkg/volume/hostpath).

use std::fs::{self, FileType, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use crate::{Error, fs as files};

/// Checks `path` against a `HostPathType`, and makes what an `OrCreate` type asks for.
pub(crate) fn set_up(path: &str, check: &str) -> Result<(), Error> {
    let on_host = Path::new(path);
    match check {
        "" => return Ok(()),
        "DirectoryOrCreate" if kind(on_host)?.is_none() => {
            files::make_dir(on_host)?;
            files::chmod(on_host, 0o755)?;
        }
        "FileOrCreate" if kind(on_host)?.is_none() => {
            let created = OpenOptions::new().write(true).create_new(true).mode(0o644).open(on_host);
            created.map_err(Error::io("create", on_host))?;
        }
        _ => {}
    }
    let found = kind(on_host)?;
    let is = |test: fn(&FileType) -> bool| found.as_ref().is_some_and(test);
    let (fits, expected) = match check {
        "DirectoryOrCreate" | "Directory" => (is(FileType::is_dir), "a directory"),
        "FileOrCreate" | "File" => (is(|kind| !kind.is_dir()), "a file"),
        "Socket" => (is(FileType::is_socket), "a socket file"),
        "CharDevice" => (is(FileType::is_char_device), "a character device"),
        "BlockDevice" => (is(FileType::is_block_device), "a block device"),
        other => return Err(Error::HostPathUnknownType(other.to_owned())),
    };
    if fits { Ok(()) } else { Err(Error::HostPathType { path: path.to_owned(), expected }) }
}

fn kind(path: &Path) -> Result<Option<FileType>, Error> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.file_type())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("stat", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn checks_and_creations() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        let message = |name: &str, check: &str| set_up(&path(name), check).unwrap_err().to_string();
        assert!(set_up(&path("absent"), "").is_ok());
        assert_eq!(message("d", "Directory"), format!("hostPath type check failed: {} is not a directory", path("d")));
        set_up(&path("d/e"), "DirectoryOrCreate").unwrap();
        set_up(&path("d/e"), "Directory").unwrap();
        set_up(&path("d/e/f"), "FileOrCreate").unwrap();
        set_up(&path("d/e/f"), "File").unwrap();
        assert_eq!(message("d", "File"), format!("hostPath type check failed: {} is not a file", path("d")));
        assert_eq!(
            message("d/e/f", "DirectoryOrCreate"),
            format!("hostPath type check failed: {} is not a directory", path("d/e/f"))
        );
        assert_eq!(message("d", "Socket"), format!("hostPath type check failed: {} is not a socket file", path("d")));
        let _socket = UnixListener::bind(path("s")).unwrap();
        set_up(&path("s"), "Socket").unwrap();
        set_up("/dev/null", "CharDevice").unwrap();
        assert_eq!(
            message("s", "CharDevice"),
            format!("hostPath type check failed: {} is not a character device", path("s"))
        );
        assert_eq!(
            message("s", "BlockDevice"),
            format!("hostPath type check failed: {} is not a block device", path("s"))
        );
        assert_eq!(message("s", "Fifo"), "Fifo is an invalid volume type");
    }
}
