//! A store taken as a whole: checked, copied, moved together, pruned, migrated.

mod backup;
mod check;
mod make;
mod migrate;
mod prune;
