//! Amounts of resources as plain integers.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// What a pod asks for or a node has. CPU in thousandths, everything else in units (bytes, pieces).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// Thousandths of a core.
    pub milli_cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes of local ephemeral storage.
    pub ephemeral_storage: i64,
    /// Number of pods.
    pub pods: i64,
    /// Extended resources and huge pages by name. Empty for most pods.
    pub scalars: BTreeMap<String, i64>,
}

impl Resources {
    /// Reads a resource list (`status.allocatable`, summed requests).
    #[must_use]
    pub fn from_list(list: &BTreeMap<String, Quantity>) -> Self {
        let mut sum = Self::default();
        for (name, quantity) in list {
            match name.as_str() {
                "cpu" => sum.milli_cpu = milli_value(quantity),
                "memory" => sum.memory = value(quantity),
                "ephemeral-storage" => sum.ephemeral_storage = value(quantity),
                "pods" => sum.pods = value(quantity),
                _ => {
                    sum.scalars.insert(name.clone(), value(quantity));
                }
            }
        }
        sum
    }

    /// Adds another amount.
    pub fn add(&mut self, other: &Self) {
        self.each(other, i64::saturating_add);
    }

    /// Takes another amount away.
    pub fn subtract(&mut self, other: &Self) {
        self.each(other, i64::saturating_sub);
    }

    /// Whether it is less than another of anything.
    #[must_use]
    pub fn is_less_of_any(&self, other: &Self) -> bool {
        let mut rest = self.clone();
        rest.subtract(other);
        let amounts = [rest.milli_cpu, rest.memory, rest.ephemeral_storage, rest.pods];
        amounts.into_iter().chain(rest.scalars.into_values()).any(|amount| amount < 0)
    }

    fn each(&mut self, other: &Self, combine: fn(i64, i64) -> i64) {
        self.milli_cpu = combine(self.milli_cpu, other.milli_cpu);
        self.memory = combine(self.memory, other.memory);
        self.ephemeral_storage = combine(self.ephemeral_storage, other.ephemeral_storage);
        self.pods = combine(self.pods, other.pods);
        for (name, amount) in &other.scalars {
            let mine = self.scalars.entry(name.clone()).or_default();
            *mine = combine(*mine, *amount);
        }
    }
}

fn parsed(quantity: &Quantity) -> Option<api::quantity::Quantity> {
    quantity.0.parse().ok()
}

fn value(quantity: &Quantity) -> i64 {
    parsed(quantity).map_or(0, |quantity| quantity.value())
}

fn milli_value(quantity: &Quantity) -> i64 {
    parsed(quantity).map_or(0, |quantity| quantity.milli_value())
}
