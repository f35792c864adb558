//! The machine ran out of memory: `SystemOOM` of the node, for each process that the kernel killed for it
//! (pkg/kubelet/oom, cadvisor's `utils/oomparser`). What a cgroup's limit costs a container is told by the runtime.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::Duration;

use nix::libc;
use tokio::net::unix::pipe;

use crate::events::{Kind, Recorder, node_reference};

const KMSG: &str = "/dev/kmsg";
/// Longer than any record.
const RECORD: usize = 16 << 10;
/// Between two looks, however much the kernel says.
const PAUSE: Duration = Duration::from_secs(1);

/// Follows the kernel's messages until this task is ended, or the kernel shows them no longer. Where it may not, nobody is told.
pub(super) async fn follow(recorder: Recorder, node_name: String) {
    if let Err(error) = tell(&recorder, &node_name).await {
        tracing::debug!(%error, "{KMSG} is not followed");
    }
}

async fn tell(recorder: &Recorder, node_name: &str) -> io::Result<()> {
    let (kmsg, mut oom, mut record) = (open()?, Oom::default(), vec![0; RECORD]);
    loop {
        kmsg.readable().await?;
        while let Some(text) = next(&kmsg, &mut record)? {
            if let Some(victim) = message(&text).and_then(|message| oom.hear(message)) {
                recorder.event(&node_reference(node_name), Kind::Warning, "SystemOOM", &victim.text());
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// From its end: what an agent of before told is not told again. It is no pipe, but waited for and read as one.
fn open() -> io::Result<pipe::Receiver> {
    let mut kmsg = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(KMSG)?;
    kmsg.seek(SeekFrom::End(0))?;
    pipe::Receiver::from_file_unchecked(kmsg)
}

/// The next record; `None` for as long as there is none.
fn next(kmsg: &pipe::Receiver, record: &mut [u8]) -> io::Result<Option<String>> {
    loop {
        match kmsg.try_read(record) {
            Ok(0) => return Ok(None),
            Ok(length) => {
                return Ok(Some(String::from_utf8_lossy(record.get(..length).unwrap_or_default()).into_owned()));
            }
            // The oldest records had to make room before they were read.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

/// The text of a record: `PRIORITY,NUMBER,TIME,FLAGS;TEXT`, and lines of facts.
fn message(record: &str) -> Option<&str> {
    record.split_once(';').and_then(|(_, rest)| rest.lines().next())
}

/// A process that was killed.
#[derive(Debug, PartialEq, Eq)]
struct Victim {
    name: String,
    pid: u32,
}

impl Victim {
    fn text(&self) -> String {
        format!("System OOM encountered, victim process: {}, pid: {}", self.name, self.pid)
    }
}

/// What was said of the present kill.
#[derive(Debug, Default)]
struct Oom {
    is_under_way: bool,
}

impl Oom {
    /// Takes the next message. Answers who was killed, unless it was for a cgroup's limit.
    fn hear(&mut self, message: &str) -> Option<Victim> {
        if message.contains("invoked oom-killer:") {
            self.is_under_way = true;
        } else if is_of_cgroup(message) {
            self.is_under_way = false;
        }
        let victim = killed(message).filter(|_| self.is_under_way)?;
        self.is_under_way = false;
        Some(victim)
    }
}

/// Since Linux 5.0, and before.
fn is_of_cgroup(message: &str) -> bool {
    message.contains(",oom_memcg=") || message.contains(" killed as a result of limit of ")
}

/// `Out of memory: Killed process 12 (name) total-vm:…`
fn killed(message: &str) -> Option<Victim> {
    let (_, rest) = message.split_once("Killed process ")?;
    let (pid, rest) = rest.split_once(" (")?;
    let (name, _) = rest.rsplit_once(')')?;
    Some(Victim { name: name.to_owned(), pid: pid.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn victims(messages: &[&str]) -> Vec<String> {
        let mut oom = Oom::default();
        messages.iter().filter_map(|message| oom.hear(message)).map(|victim| victim.text()).collect()
    }

    #[test]
    fn the_machines_victims_are_told_and_those_of_limits_are_not() {
        let machine = [
            "postgres invoked oom-killer: gfp_mask=0x140cca(GFP_HIGHUSER_MOVABLE|__GFP_COMP), order=0, oom_score_adj=0",
            "CPU: 1 PID: 77 Comm: postgres Not tainted 6.1.0-13-amd64",
            "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/kubepods/x,task=stress (1),pid=812,uid=0",
            "Out of memory: Killed process 812 (stress (1)) total-vm:4096kB, anon-rss:12kB, UID:0 pgtables:9kB oom_score_adj:1000",
        ];
        let limit = [
            "tail invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=996",
            "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=cri-1,mems_allowed=0,oom_memcg=/kubepods/y,task_memcg=/kubepods/y/1,task=tail,pid=900,uid=0",
            "Memory cgroup out of memory: Killed process 900 (tail) total-vm:4096kB, anon-rss:12kB",
        ];
        let told = ["System OOM encountered, victim process: stress (1), pid: 812"];
        assert_eq!(victims(&machine), told);
        assert_eq!(victims(&limit), Vec::<String>::new());
        assert_eq!(victims(&[&limit[..], &machine, &limit].concat()), told);
        assert_eq!(victims(&["sysrq: Killed process 1 (x)"]), Vec::<String>::new(), "not for want of memory");
    }

    /// As root, with the kernel's own.
    #[tokio::test]
    async fn what_is_said_from_now_on_is_heard() {
        let kmsg = open().unwrap();
        let said = format!("a test of process {}", std::process::id());
        std::fs::write(KMSG, format!("{said}\n")).unwrap();
        let heard = async {
            let mut record = vec![0; RECORD];
            loop {
                kmsg.readable().await.unwrap();
                while let Some(text) = next(&kmsg, &mut record).unwrap() {
                    if message(&text) == Some(&said) {
                        return;
                    }
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), heard).await.unwrap();
    }

    #[test]
    fn a_records_text_is_found() {
        assert_eq!(message("3,1234,5678,-;Killed; process\n SUBSYSTEM=x\n"), Some("Killed; process"));
        assert_eq!(message("nothing"), None);
    }
}
