//! Collects what is wrong with a message while it is read. Each defect counts once, however often it is met.

use crate::event::Defect;

/// The defects so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Defects(Vec<Defect>);

impl Defects {
    pub(super) fn note(&mut self, defect: Defect) {
        if !self.0.contains(&defect) {
            self.0.push(defect);
        }
    }

    pub(super) fn note_if(&mut self, condition: bool, defect: Defect) {
        if condition {
            self.note(defect);
        }
    }

    #[cfg(test)]
    pub(super) fn has(&self, defect: Defect) -> bool {
        self.0.contains(&defect)
    }

    /// In the order of [`Defect`], so that equal messages have equal events.
    pub(super) fn into_sorted(mut self) -> Vec<Defect> {
        self.0.sort_unstable();
        self.0
    }
}

impl IntoIterator for Defects {
    type Item = Defect;
    type IntoIter = std::vec::IntoIter<Defect>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl Extend<Defect> for Defects {
    fn extend<T: IntoIterator<Item = Defect>>(&mut self, defects: T) {
        defects.into_iter().for_each(|defect| self.note(defect));
    }
}
