//! Environment variables in the order in which they were first set.

use std::collections::HashMap;

/// An ordered set of `NAME=value`: what `ENV` writes into the image, and what words see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    list: Vec<(String, String)>,
    places: HashMap<String, usize>,
}

impl Environment {
    /// Reads `NAME=value` strings, as an image configuration holds them. The last of a name wins.
    pub fn from_strings<S: AsRef<str>>(strings: impl IntoIterator<Item = S>) -> Self {
        let mut environment = Self::default();
        for text in strings {
            let (name, value) = text.as_ref().split_once('=').unwrap_or((text.as_ref(), ""));
            environment.set(name, value);
        }
        environment
    }

    /// Sets a variable; one that exists keeps its place.
    pub fn set(&mut self, name: &str, value: &str) {
        match self.places.get(name) {
            Some(&place) => value.clone_into(&mut self.list[place].1),
            None => {
                self.places.insert(name.to_owned(), self.list.len());
                self.list.push((name.to_owned(), value.to_owned()));
            }
        }
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.places
            .get(name)
            .map(|&place| self.list[place].1.as_str())
    }

    /// All variables in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.list
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// All variables in order as `NAME=value`.
    pub fn to_strings(&self) -> Vec<String> {
        self.list
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Environment {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(pairs: I) -> Self {
        let mut environment = Self::default();
        pairs
            .into_iter()
            .for_each(|(name, value)| environment.set(name, value));
        environment
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_keeps_its_first_place_and_last_value() {
        let mut environment = Environment::from_strings(["A=1", "B=x=y", "C"]);
        environment.set("A", "2");
        assert_eq!(environment.to_strings(), ["A=2", "B=x=y", "C="]);
        assert_eq!(environment.get("B"), Some("x=y"));
        assert_eq!(environment.get("D"), None);
    }
}
