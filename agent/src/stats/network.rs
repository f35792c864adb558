//! Traffic of network interfaces, from `/proc/<pid>/net/dev`: the kernel shows there the network namespace of the process.

/// Traffic of one interface since it was made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Interface {
    pub name: String,
    pub received: Traffic,
    pub sent: Traffic,
}

/// One direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    pub bytes: u64,
    pub packets: u64,
    pub errors: u64,
    pub dropped: u64,
}

/// Interfaces that cAdvisor leaves out: traffic within the machine.
const IGNORED: [&str; 4] = ["lo", "veth", "docker", "nerdctl"];

/// The interfaces that a process sees; none when it has ended.
pub(super) fn of_process(pid: &str) -> Vec<Interface> {
    // A pod may name its interfaces with any bytes.
    let read = std::fs::read(format!("/proc/{pid}/net/dev"));
    read.map(|text| parse(&String::from_utf8_lossy(&text))).unwrap_or_default()
}

fn parse(text: &str) -> Vec<Interface> {
    text.lines().filter_map(interface).filter(|i| !IGNORED.iter().any(|prefix| i.name.starts_with(prefix))).collect()
}

/// `  eth0: bytes packets errs drop fifo frame compressed multicast bytes packets errs drop …`; headers have no colon.
fn interface(line: &str) -> Option<Interface> {
    let (name, counters) = line.split_once(':')?;
    let counters: Vec<u64> = counters.split_whitespace().map_while(|word| word.parse().ok()).collect();
    let direction = |from: usize| match counters.get(from..from + 4) {
        Some(&[bytes, packets, errors, dropped]) => Some(Traffic { bytes, packets, errors, dropped }),
        _ => None,
    };
    Some(Interface { name: name.trim().to_owned(), received: direction(0)?, sent: direction(8)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_and_inner_interfaces_left_out() {
        let text = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
  eth0:1001  10    2    3    0     0          0         0     2002      20    4    5    0     0       0          0
veth12ab:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0
";
        let expected = Interface {
            name: "eth0".into(),
            received: Traffic { bytes: 1001, packets: 10, errors: 2, dropped: 3 },
            sent: Traffic { bytes: 2002, packets: 20, errors: 4, dropped: 5 },
        };
        assert_eq!(parse(text), [expected]);
        assert!(of_process("no-such-process").is_empty());
    }
}
