//! The directories that a layer uses and does not list.

use std::collections::BTreeMap;

/// A directory in [`Implied`].
pub type Node = u32;

/// The tree of the directories that a layer uses and does not list, with the directories above them. A
/// set of paths would cost the length of a path for each directory.
pub struct Implied {
    /// Whether a directory is implied, by node.
    implied: Vec<bool>,
    children: BTreeMap<(Node, Vec<u8>), Node>,
}

impl Default for Implied {
    /// A layer without entries.
    fn default() -> Self {
        Self { implied: vec![true], children: BTreeMap::new() }
    }
}

impl Implied {
    /// The root, which is implied until the layer lists it.
    pub const ROOT: Node = 0;

    /// The node of a name in a directory, if there is one.
    pub fn child(&self, parent: Node, name: &[u8]) -> Option<Node> {
        self.children.get(&(parent, name.to_vec())).copied()
    }

    /// The names in a directory with their nodes, sorted.
    pub fn children(&self, parent: Node) -> impl DoubleEndedIterator<Item = (&[u8], Node)> {
        let range = self.children.range((parent, Vec::new())..(parent + 1, Vec::new()));
        range.map(|((_, name), node)| (name.as_slice(), *node))
    }

    /// The node of a name in a directory, which is made if it is absent.
    pub fn add(&mut self, parent: Node, name: &[u8]) -> Node {
        // A layer has less than 2^32 entries (MAX_ENTRIES).
        let next = Node::try_from(self.implied.len()).unwrap_or(Node::MAX);
        let node = *self.children.entry((parent, name.to_vec())).or_insert(next);
        if node == next {
            self.implied.push(false);
        }
        node
    }

    pub fn set_implied(&mut self, node: Node, implied: bool) {
        if let Some(known) = self.implied.get_mut(node as usize) {
            *known = implied;
        }
    }

    pub fn is_implied(&self, node: Node) -> bool {
        self.implied.get(node as usize) == Some(&true)
    }

    pub fn has_any_below_root(&self) -> bool {
        self.implied.iter().skip(1).any(|implied| *implied)
    }

    /// Removes a name and the nodes below it.
    pub fn forget(&mut self, parent: Node, name: &[u8]) {
        let mut gone: Vec<Node> =
            self.children.remove(&(parent, name.to_vec())).into_iter().collect();
        while let Some(node) = gone.pop() {
            self.set_implied(node, false);
            let names: Vec<Vec<u8>> = self.children(node).map(|(name, _)| name.to_vec()).collect();
            gone.extend(names.into_iter().filter_map(|name| self.children.remove(&(node, name))));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_forgotten_with_all_beneath_it_and_nothing_else() {
        let mut implied = Implied::default();
        let a = implied.add(Implied::ROOT, b"a");
        let b = implied.add(a, b"b");
        let ab = implied.add(Implied::ROOT, b"ab");
        assert_eq!(implied.add(a, b"b"), b);
        assert!(!implied.has_any_below_root());
        implied.set_implied(b, true);
        implied.set_implied(ab, true);
        implied.forget(Implied::ROOT, b"a");
        assert_eq!((implied.is_implied(b), implied.is_implied(ab)), (false, true));
        assert_eq!(implied.children(Implied::ROOT).collect::<Vec<_>>(), [(b"ab".as_slice(), ab)]);
        assert_eq!(implied.child(a, b"b"), None);
    }
}
