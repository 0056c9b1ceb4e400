//! A store taken as a whole: checked, copied, moved together.

mod backup;
mod check;
mod make;
