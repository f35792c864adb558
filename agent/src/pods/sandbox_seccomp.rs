//! What a pause container may ask of the kernel.
//!
//! It starts, waits, reaps and ends: a list of a hundred calls confines it more tightly than the runtime's default profile,
//! and loads in a fraction of its time. That default has rules on arguments and three architectures, and costs runc some
//! 20 ms of a core for each sandbox, an eighth of all that a small pod's start takes.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::config::write_atomic;

const FILE: &str = "sandbox-seccomp.json";

/// `ENOSYS`: whoever tries a call that is newer than this list takes the older way.
const NOT_IMPLEMENTED: u32 = 38;

/// What pause itself needs, and before it the end of runc's own start in the container: users, capabilities, descriptors,
/// and what a Go runtime lives by. Names that an architecture does not have are skipped there.
const ALLOWED: &str = "\
    access arch_prctl brk capget capset chdir clock_getres clock_gettime clock_nanosleep clone clone3 close close_range dup \
    dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd2 execve execveat exit \
    exit_group faccessat faccessat2 fchdir fchmod fchown fcntl fstat fstatfs futex futex_waitv get_robust_list getcwd \
    getdents64 getegid geteuid getgid getgroups getpgid getpgrp getpid getppid getrandom getresgid getresuid getrlimit \
    getsid gettid gettimeofday getuid ioctl kill lseek lstat madvise membarrier mmap mprotect mremap munmap nanosleep \
    newfstatat open openat openat2 pause pipe pipe2 poll ppoll prctl pread64 prlimit64 pselect6 read readlink readlinkat \
    readv restart_syscall rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend \
    rt_sigtimedwait rt_tgsigqueueinfo sched_getaffinity sched_yield select sendmsg set_robust_list set_tid_address \
    setfsgid setfsuid setgid setgroups setpgid setregid setresgid setresuid setreuid setrlimit setsid setuid \
    sigaltstack stat statfs statx tgkill time timer_create timer_delete timer_settime tkill umask uname wait4 waitid \
    write writev";

/// Writes the profile below the agent's data folder, from where the runtime reads it for each sandbox.
///
/// # Errors
/// What the filesystem said.
pub fn write(data_dir: &Path) -> io::Result<PathBuf> {
    std::fs::create_dir_all(data_dir)?;
    let path = data_dir.join(FILE);
    write_atomic(&path, profile().to_string().as_bytes(), 0o644)?;
    Ok(path)
}

/// A profile of the OCI runtime specification, for the machine's own architecture.
fn profile() -> Value {
    let names: Vec<&str> = ALLOWED.split_ascii_whitespace().collect();
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": NOT_IMPLEMENTED,
        "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_changes_the_machine_is_allowed() {
        let profile = profile();
        let names = profile["syscalls"][0]["names"].as_array().unwrap();
        assert!(names.iter().any(|name| name == "execve") && names.iter().all(|name| name != ""));
        for refused in ["mount", "unshare", "setns", "ptrace", "bpf", "socket", "keyctl", "kexec_load", "reboot"] {
            assert!(names.iter().all(|name| name != refused), "{refused}");
        }
    }
}
