//! What the kernel is told of the agent itself: `oomScoreAdj` and `maxOpenFiles`. Where it may not be told, the agent goes on with what it has,
//! as a kubelet does.

use std::path::Path;
use std::{fs, io};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::config::KubeletConfiguration;

/// Sets both, below `root` (`/` but in tests) what is a file.
pub fn set(root: &Path, config: &KubeletConfiguration) {
    let score = config.oom_score_adj;
    if let Err(error) = oom_score(root, score) {
        // Less than it was given takes CAP_SYS_RESOURCE.
        tracing::warn!(%error, oom_score_adj = score, "oomScoreAdj is not set");
    }
    let files = u64::try_from(config.max_open_files).unwrap_or(0);
    if let Err(error) = open_files(files) {
        tracing::warn!(%error, max_open_files = files, "maxOpenFiles is not set, as many as are allowed may be open");
    }
}

fn oom_score(root: &Path, score: i32) -> io::Result<()> {
    let path = root.join("proc/self/oom_score_adj");
    let is_set = fs::read_to_string(&path).is_ok_and(|text| text.trim() == score.to_string());
    if is_set { Ok(()) } else { fs::write(path, score.to_string()) }
}

/// As upstream, the soft and the hard limit. More than the hard one takes CAP_SYS_RESOURCE: without it, all that it allows.
fn open_files(files: u64) -> nix::Result<()> {
    let of = Resource::RLIMIT_NOFILE;
    let told = setrlimit(of, files, files);
    if told.is_err() {
        let (_, hard) = getrlimit(of)?;
        setrlimit(of, hard.min(files), hard)?;
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_score_is_written_where_it_is_another() {
        let root = tempfile::tempdir().unwrap();
        assert!(oom_score(root.path(), -999).is_err());
        let path = root.path().join("proc/self/oom_score_adj");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "0\n").unwrap();
        oom_score(root.path(), -998).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "-998");
        // What the unit has set already is not written.
        fs::write(&path, "-999\n").unwrap();
        oom_score(root.path(), -999).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "-999\n");
    }

    #[test]
    fn as_many_files_as_are_allowed_may_be_open() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        // The other tests of this process can do with the hard limit.
        open_files(hard).unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard));
        // More than the kernel gives anyone.
        assert!(open_files(u64::MAX / 2).is_err());
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard));
    }
}
