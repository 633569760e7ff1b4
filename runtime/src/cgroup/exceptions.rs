//! A set of device nodes with the access to each, in the order they came in.

use std::collections::BTreeMap;

use super::devices::{Access, Node};

/// Exceptions to a default. A v1 cgroup lists them in the order in which they
/// were written, so the configuration's order is kept.
#[derive(Debug, Clone, Default)]
pub(crate) struct Exceptions {
    places: BTreeMap<Node, usize>,
    /// Without access: taken out again.
    list: Vec<(Node, Access)>,
}

impl Exceptions {
    /// The access to exactly this node; none where there is no exception.
    pub(super) fn get(&self, node: &Node) -> Access {
        self.places
            .get(node)
            .map_or(Access::default(), |&place| self.list[place].1)
    }

    /// Adds access to a node.
    pub(super) fn add(&mut self, node: Node, access: Access) {
        let held = self.get(&node).with(access);
        self.set(node, held);
    }

    /// Takes access to a node away.
    pub(super) fn take(&mut self, node: Node, access: Access) {
        if self.places.contains_key(&node) {
            let held = self.get(&node).without(access);
            self.set(node, held);
        }
    }

    fn set(&mut self, node: Node, access: Access) {
        let place = *self.places.entry(node).or_insert(self.list.len());
        match self.list.get_mut(place) {
            Some(entry) => entry.1 = access,
            None => self.list.push((node, access)),
        }
    }

    /// All of them, in their order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Node, Access)> {
        self.list
            .iter()
            .filter(|(_, access)| !access.is_none())
            .copied()
    }
}

impl PartialEq for Exceptions {
    /// The order does not matter to who is let in.
    fn eq(&self, other: &Self) -> bool {
        self.iter().count() == other.iter().count()
            && self.iter().all(|(node, access)| other.get(&node) == access)
    }
}

impl Eq for Exceptions {}

#[cfg(test)]
mod tests {
    use super::super::devices::Kind;
    use super::*;

    fn node(minor: u32) -> Node {
        Node {
            kind: Kind::Char,
            major: Some(1),
            minor: Some(minor),
        }
    }

    #[test]
    fn the_order_is_that_of_coming() {
        let mut all = Exceptions::default();
        for minor in [9, 3, 5] {
            all.add(node(minor), Access::ALL);
        }
        all.take(node(3), Access::ALL);
        all.take(node(7), Access::ALL);
        all.add(node(9), Access::ALL);
        assert!(all.iter().map(|(node, _)| node).eq([node(9), node(5)]));
        let mut other = Exceptions::default();
        other.add(node(5), Access::ALL);
        assert_ne!(all, other);
        other.add(node(9), Access::ALL);
        assert_eq!(all, other);
    }
}
