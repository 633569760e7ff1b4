//! Prints one line; exits with 0, or with the status given as its argument.

fn main() {
    println!("hello from a container");
    let status = std::env::args().nth(1).and_then(|text| text.parse().ok());
    std::process::exit(status.unwrap_or(0));
}
