//! Values under numbers that are never used for another value.

/// Values, each under a key that is never used again.
#[derive(Debug)]
pub struct Table<T> {
    slots: Vec<(u32, Option<Box<T>>)>,
    free: Vec<u32>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }
}

/// Bits of a key that count how often its slot was used. Two more bits are left for callers.
const GENERATIONS: u32 = (1 << 30) - 1;

impl<T> Table<T> {
    /// Adds a value, and gives its key.
    pub fn add(&mut self, value: T) -> u64 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            self.slots.len() as u32 - 1
        });
        let (generation, place) = &mut self.slots[slot as usize];
        *place = Some(Box::new(value));
        u64::from(*generation) << 32 | u64::from(slot)
    }

    fn slot(&mut self, key: u64) -> Option<&mut (u32, Option<Box<T>>)> {
        let slot = self.slots.get_mut(key as u32 as usize)?;
        (u64::from(slot.0) == key >> 32).then_some(slot)
    }

    /// The value of a key.
    pub fn get(&mut self, key: u64) -> Option<&mut T> {
        self.slot(key)?.1.as_deref_mut()
    }

    /// Takes the value of a key.
    pub fn remove(&mut self, key: u64) -> Option<Box<T>> {
        let slot = self.slot(key)?;
        let value = slot.1.take()?;
        slot.0 = (slot.0 + 1) & GENERATIONS;
        self.free.push(key as u32);
        Some(value)
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// The keys of all values.
    pub fn keys(&self) -> Vec<u64> {
        let key = |(slot, (generation, value)): (usize, &(u32, Option<Box<T>>))| {
            value.as_ref().map(|_| u64::from(*generation) << 32 | slot as u64)
        };
        self.slots.iter().enumerate().filter_map(key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_that_of_another_value() {
        let mut table = Table::default();
        let (a, b) = (table.add('a'), table.add('b'));
        assert_eq!((table.remove(a).as_deref(), table.len()), (Some(&'a'), 1));
        let c = table.add('c');
        assert_ne!(a, c);
        assert_eq!(table.get(a), None);
        assert_eq!(table.get(c), Some(&mut 'c'));
        assert_eq!((table.remove(a), table.keys().len()), (None, 2));
        assert_eq!(table.get(b), Some(&mut 'b'));
    }
}
