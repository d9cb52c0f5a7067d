//! The `agent-sandbox-provider` program.

fn main() -> std::process::ExitCode {
    agent_sandbox_provider::serve::main()
}
