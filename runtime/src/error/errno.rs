//! Names of error numbers (`errno(3)`).

macro_rules! names {
    ($($name:ident)*) => {
        /// Every error number with its name; of two names for one number the first.
        const NAMES: &[(i32, &str)] = &[$((libc::$name, stringify!($name)),)*];
    };
}

names! {
    EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT
    ENOTBLK EBUSY EEXIST EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG
    ENOSPC ESPIPE EROFS EMLINK EPIPE EDOM ERANGE EDEADLK ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY
    ELOOP ENOMSG EIDRM ENOSTR ENODATA ETIME ENOLINK EPROTO EBADMSG EOVERFLOW EBADFD ELIBACC
    ELIBBAD ELIBEXEC EILSEQ EUSERS ENOTSOCK EDESTADDRREQ EMSGSIZE EPROTOTYPE ENOPROTOOPT
    EPROTONOSUPPORT ESOCKTNOSUPPORT EOPNOTSUPP EPFNOSUPPORT EAFNOSUPPORT EADDRINUSE EADDRNOTAVAIL
    ENETDOWN ENETUNREACH ENETRESET ECONNABORTED ECONNRESET ENOBUFS EISCONN ENOTCONN ESHUTDOWN
    ETIMEDOUT ECONNREFUSED EHOSTDOWN EHOSTUNREACH EALREADY EINPROGRESS ESTALE EUCLEAN EREMOTEIO
    EDQUOT EMEDIUMTYPE ECANCELED ENOKEY EKEYEXPIRED EKEYREVOKED EKEYREJECTED EOWNERDEAD
    ENOTRECOVERABLE EHWPOISON
}

/// The name of an error number, such as `ENOENT`; the number itself where it has none.
pub(crate) fn name(errno: i32) -> String {
    NAMES
        .iter()
        .find(|(number, _)| *number == errno)
        .map_or_else(|| errno.to_string(), |(_, name)| (*name).to_owned())
}

/// What the number means, as runc and all of Go spell it, in whose words
/// orchestrators search: the C library's, but in lower case.
pub(crate) fn words(errno: i32) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    match (letters.next(), letters.clone().next()) {
        (Some(first), Some(second)) if second.is_ascii_lowercase() => {
            format!("{}{}", first.to_ascii_lowercase(), letters.as_str())
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_go() {
        assert_eq!(words(libc::ENOENT), "no such file or directory");
        assert_eq!(words(libc::ENOEXEC), "exec format error");
        assert_eq!(words(libc::ENXIO), "no such device or address");
        assert!(!words(9999).is_empty());
    }

    #[test]
    fn numbers_have_names() {
        assert_eq!(name(libc::ENOENT), "ENOENT");
        assert_eq!(name(libc::ELIBBAD), "ELIBBAD");
        assert_eq!(name(9999), "9999");
    }
}
