//! Host names that the platform itself answers.

/// The platform's own host names, below the system domain.
pub const SYSTEM_HOSTS: [&str; 4] = ["api", "log-cache", "login", "uaa"];

/// Whether a full name, in any case, is one that the platform itself answers.
#[must_use]
pub fn is_system_name(name: &str, system_domain: &str) -> bool {
    name.split_once('.').is_some_and(|(host, domain)| {
        domain.eq_ignore_ascii_case(system_domain)
            && SYSTEM_HOSTS.iter().any(|system| system.eq_ignore_ascii_case(host))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_name_is_one_label_before_the_system_domain() {
        assert!(is_system_name("API.Sys.example.com", "sys.Example.com"));
        assert!(!is_system_name("x.api.sys.example.com", "sys.example.com"));
    }
}
