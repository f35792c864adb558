//! The numbers by which the kernel's maps know groups of endpoints.

use std::collections::HashSet;

/// Which numbers are taken.
#[derive(Debug, Default)]
pub struct Numbers {
    taken: HashSet<u32>,
}

impl Numbers {
    /// A number for the group called `name`. A name has the same one in every life of the program, unless another group came first that would
    /// have it, too: the kernel remembers clients by it.
    pub fn take(&mut self, name: &str) -> u32 {
        let hash = netns::fnv1a(name.as_bytes());
        let mut number = (hash ^ (hash >> 32)) as u32;
        while !self.taken.insert(number) {
            number = number.wrapping_add(1);
        }
        number
    }

    /// The group is gone.
    pub fn release(&mut self, number: u32) {
        self.taken.remove(&number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_its_number_unless_it_is_taken() {
        let mut numbers = Numbers::default();
        let first = numbers.take("default/web:http");
        let second = numbers.take("default/web:http");
        assert_eq!(second, first.wrapping_add(1));
        numbers.release(first);
        assert_eq!(numbers.take("default/web:http"), first);
        assert_eq!(Numbers::default().take("default/web:http"), first);
        assert_ne!(Numbers::default().take("default/web:https"), first);
    }
}
