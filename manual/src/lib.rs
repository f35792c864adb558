//! What the command lines of both programs have in common: man pages and shell completions, made from the definition of a command line, so that
//! they cannot say anything else than the program does; and what is written to standard output.

pub mod output;

use std::fs;
use std::io;
use std::path::Path;

use clap::Command;
use clap_complete::Shell;

/// The shells, and where below `share` Debian and others look for their completions.
const SHELLS: [(Shell, &str); 3] = [
    (Shell::Bash, "bash-completion/completions"),
    (Shell::Zsh, "zsh/vendor-completions"),
    (Shell::Fish, "fish/vendor_completions.d"),
];

/// Writes below `share` (`/usr/share`) a man page for the program and for each of its commands, and its completions.
///
/// # Errors
/// A folder or file that cannot be written.
pub fn write(program: &Command, share: &Path) -> io::Result<()> {
    let pages = share.join("man/man1");
    fs::create_dir_all(&pages)?;
    clap_mangen::generate_to(program.clone(), &pages)?;
    let name = program.get_name().to_owned();
    for (shell, folder) in SHELLS {
        let folder = share.join(folder);
        fs::create_dir_all(&folder)?;
        let written = clap_complete::generate_to(shell, &mut program.clone(), &name, &folder)?;
        // bash-completion looks for the bare name of the command.
        if shell == Shell::Bash {
            fs::rename(&written, folder.join(&name))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_and_the_shells_know_it() {
        let program = Command::new("ship").subcommand(Command::new("sail").about("Leave the port"));
        let share = tempfile::tempdir().unwrap();
        write(&program, share.path()).unwrap();
        let read = |path: &str| fs::read_to_string(share.path().join(path)).unwrap();
        assert!(read("man/man1/ship.1").contains("sail"));
        assert!(read("man/man1/ship-sail.1").contains("Leave the port"));
        assert!(read("bash-completion/completions/ship").contains("sail"));
        assert!(read("zsh/vendor-completions/_ship").contains("Leave the port"));
        assert!(read("fish/vendor_completions.d/ship.fish").contains("Leave the port"));
    }
}
