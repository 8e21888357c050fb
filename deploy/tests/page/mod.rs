//! Pages whose commands are run: each block of the shell, and what it is shown to answer.

/// Commands and the lines that the page shows below them.
#[derive(Debug, Default)]
pub(crate) struct Block {
    /// Where in the page it begins.
    pub(crate) line: usize,
    pub(crate) commands: String,
    pub(crate) shown: Vec<String>,
}

/// The blocks fenced as `sh`, each with the block fenced as `text` that follows it at once. Other
/// text is a drawing.
pub(crate) fn blocks(page: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut lines = page.lines().enumerate();
    let mut is_next = false;
    while let Some((number, line)) = lines.next() {
        let mut body = || -> Vec<String> {
            let body = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```");
            body.map(str::to_owned).collect()
        };
        match line {
            "```sh" => {
                let commands = body().iter().map(|line| format!("{line}\n")).collect();
                found.push(Block { line: number + 1, commands, ..Block::default() });
            }
            "```text" => {
                let text = body();
                if let Some(block) = found.last_mut().filter(|_| is_next) {
                    block.shown = text;
                }
            }
            _ => {}
        }
        is_next = line == "```sh" || (is_next && line.is_empty());
    }
    found
}

/// Whether a line is as shown; `…` stands for anything.
pub(crate) fn is_as_shown(line: &str, shown: &str) -> bool {
    let mut rest = line;
    for (nth, part) in shown.split('…').enumerate() {
        match rest.find(part) {
            Some(at) if nth > 0 || at == 0 => rest = &rest[at + part.len()..],
            _ => return false,
        }
    }
    rest.is_empty() || shown.ends_with('…')
}
