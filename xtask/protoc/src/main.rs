//! `protoc`, as far as `prost-build` calls it: `--version`, include paths and a descriptor set to write.

use std::{path::PathBuf, process::ExitCode};

fn main() -> ExitCode {
    match run(std::env::args().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("protoc: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut args: impl Iterator<Item = String>) -> Result<(), Box<dyn std::error::Error>> {
    let (mut includes, mut files, mut output) = (Vec::<PathBuf>::new(), Vec::<PathBuf>::new(), None);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--version" => {
                println!("libprotoc 29.0");
                return Ok(());
            }
            // protox always writes both, and knows proto3 `optional`.
            "--include_imports" | "--include_source_info" | "--experimental_allow_proto3_optional" => {}
            "-o" => output = args.next(),
            "-I" => includes.extend(args.next().map(PathBuf::from)),
            _ if arg.starts_with("--descriptor_set_out=") => output = arg.split_once('=').map(|(_, v)| v.to_owned()),
            _ if arg.starts_with("--proto_path=") => includes.extend(arg.split_once('=').map(|(_, v)| v.into())),
            _ if arg.starts_with("-I") => includes.push(arg[2..].into()),
            _ if arg.starts_with('-') => return Err(format!("unsupported option {arg}").into()),
            _ => files.push(arg.into()),
        }
    }
    let output = output.ok_or("no -o or --descriptor_set_out given")?;
    let mut compiler = protox::Compiler::new(includes)?;
    compiler.include_imports(true).include_source_info(true).open_files(files)?;
    std::fs::write(output, compiler.encode_file_descriptor_set())?;
    Ok(())
}
