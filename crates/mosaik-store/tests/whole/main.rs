//! A store taken as a whole: checked, copied, moved together, migrated.

mod backup;
mod check;
mod make;
mod migrate;
