//! `cargo run --example dispute`: what two parties can't agree on, settled by what they signed.

mod story;

use std::process::ExitCode;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let folder = tempfile::tempdir()?;
    let chapters = story::play(folder.path()).await?;
    let mut settled = 0;
    for (number, chapter) in chapters.iter().enumerate() {
        println!("{}. {}", number + 1, chapter.title);
        match (chapter.is_settled(), chapter.settling()) {
            (true, Some(finding)) => println!("   ✓ {} — {} [{}]", finding.place, finding.problem, finding.code),
            (true, None) => println!("   ✓ nothing is wrong"),
            (false, _) => {
                println!("   ✗ expected {:?}, found:", chapter.expected);
                for finding in &chapter.findings {
                    println!("     {} — {} [{}]", finding.place, finding.problem, finding.code);
                }
            }
        }
        settled += usize::from(chapter.is_settled());
    }
    println!("{settled} of {} disputes settled.", chapters.len());
    Ok(if settled == chapters.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
