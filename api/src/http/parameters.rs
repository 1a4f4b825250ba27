//! Parameters that more than one operation takes.

use std::str::FromStr;

use super::{code::Code, error::Failure};
use crate::app::Problem;

/// The id in a path, which the operation's pattern has looked at already; what is left is a text of the
/// right form that encodes no id.
///
/// # Errors
/// [`Code::InvalidParameter`].
pub fn id<T: FromStr>(text: &str) -> Result<T, Failure> {
    text.parse().map_err(|_| invalid("id", "is no id"))
}

/// A parameter that is refused.
pub fn invalid(name: &str, message: &str) -> Failure {
    let problem = Problem::new(name, "invalid_value", message);
    Failure::with_problems(Code::InvalidParameter, vec![problem])
}
