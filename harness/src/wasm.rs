//! Harnesses that are data: WebAssembly core modules, named by their sha-256.
//!
//! The contract, version [`ABI`]: the module exports its memory as `memory` and `next(ptr, len) -> i64`. The host puts
//! the View as JSON into fresh pages of that memory; what comes back is where the Decision lies, as JSON: the upper half
//! the pointer, the lower half the length. A custom section `steadyhand` holds the [`Manifest`].
//!
//! There is nothing to import: no clock, no chance, no network. Each decision gets a new instance, so what a harness
//! remembers is its memo and nothing else. Fuel, memory and sizes are bounded; whatever it does, it can only fail its
//! own turn.

use crate::{
    Decision, View,
    frame::{Ask, HarnessError, Views},
    registry,
    view::VERSION,
};
use domain::{
    agent::{HarnessRef, StrategyRef},
    ids,
    limits::{DECISION_BYTES_MAX, HARNESS_FUEL_MAX, HARNESS_MEMORY_BYTES_MAX, HARNESS_MODULE_BYTES_MAX},
};
use serde::{Deserialize, Serialize};
use wasmi::{
    CompilationMode, Config, EnforcedLimits, Engine, Linker, Module, Store, StoreLimits, StoreLimitsBuilder, TrapCode,
    TypedFunc,
};

/// Version of the contract between a module and this host.
pub const ABI: u32 = 1;

const SECTION: &str = "steadyhand";
/// How every module begins.
const MAGIC: &[u8] = b"\0asm";
/// What is shown of a file that is none: enough to recognise it by.
const HEAD_BYTES: usize = 16;
const PAGE_BYTES: usize = 64 * 1024;
/// Calls within calls.
const RECURSION_MAX: usize = 1_000;
const STACK_BYTES_MAX: usize = 1024 * 1024;
const TABLE_ELEMENTS_MAX: usize = 10_000;
const NAME_BYTES_MAX: usize = 64;

/// What a module says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub abi: u32,
    pub name: String,
    pub version: u32,
    /// The version of the View that it was written for.
    pub view: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<StrategyRef>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shims: Vec<ShimNote>,
}

/// A shim, as a module declares it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShimNote {
    pub name: String,
    pub assumption: String,
    pub model: String,
}

/// Why a module is no harness.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the module has {0} bytes, and {HARNESS_MODULE_BYTES_MAX} are allowed")]
    TooLarge(usize),
    #[error("no WebAssembly core module: {0}")]
    NotWasm(String),
    #[error("it imports {0}, and there is nothing to import")]
    Imports(String),
    #[error("it has no custom section {SECTION} that says what it is")]
    NoManifest,
    #[error("its custom section {SECTION} is not what it should be: {0}")]
    Manifest(String),
    #[error("it was built for version {0} of the contract, and this build knows {ABI}")]
    Abi(u32),
    #[error("it was written for version {0} of the View, and this build makes 1 to {VERSION}")]
    View(u32),
    #[error("the name {0} belongs to a harness of this build")]
    Name(String),
    #[error("it lacks {0}")]
    Export(&'static str),
    #[error("it does not decide on an empty session: it {0}")]
    Probe(String),
}

/// A module that keeps the contract.
pub struct WasmHarness {
    module: Module,
    manifest: Manifest,
    sha256: String,
}

impl WasmHarness {
    /// Takes a module in. The same bytes are taken or refused everywhere.
    pub fn load(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > HARNESS_MODULE_BYTES_MAX {
            return Err(Error::TooLarge(bytes.len()));
        }
        if !bytes.starts_with(MAGIC) {
            let head = &bytes[..bytes.len().min(HEAD_BYTES)];
            return Err(Error::NotWasm(format!("it begins with \"{}\"", head.escape_ascii())));
        }
        let module = Module::new(&engine(), bytes).map_err(|error| Error::NotWasm(error.to_string()))?;
        if let Some(import) = module.imports().next() {
            return Err(Error::Imports(format!("{}.{}", import.module(), import.name())));
        }
        let manifest = manifest(&module)?;
        let harness = WasmHarness { module, manifest, sha256: ids::content_hash(bytes) };
        let (mut store, instance) = harness.instance().map_err(Error::Probe)?;
        if instance.get_memory(&store, "memory").is_none() {
            return Err(Error::Export("an exported memory"));
        }
        if next_of(&instance, &mut store).is_none() {
            return Err(Error::Export("an exported function next(i32, i32) -> i64"));
        }
        Ok(harness)
    }

    /// [`WasmHarness::load`], and asks it once: what cannot decide on a new session is better refused at upload than
    /// in somebody's turn.
    pub fn admit(bytes: &[u8]) -> Result<Self, Error> {
        let harness = Self::load(bytes)?;
        if registry::HARNESSES.iter().any(|native| native.name == harness.manifest.name) {
            return Err(Error::Name(harness.manifest.name));
        }
        harness.next(&View::probe(harness.manifest.view)).map_err(Error::Probe)?;
        Ok(harness)
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub fn reference(&self) -> HarnessRef {
        let Manifest { name, version, .. } = self.manifest.clone();
        HarnessRef { name, version, sha256: self.sha256.clone() }
    }

    fn instance(&self) -> Result<(Store<StoreLimits>, wasmi::Instance), String> {
        let limits = StoreLimitsBuilder::new()
            .memory_size(HARNESS_MEMORY_BYTES_MAX)
            .table_elements(TABLE_ELEMENTS_MAX)
            .instances(1)
            .memories(1)
            .tables(4)
            .build();
        let engine = self.module.engine();
        let mut store = Store::new(engine, limits);
        store.limiter(|limits| limits);
        store.set_fuel(HARNESS_FUEL_MAX).map_err(|error| error.to_string())?;
        let linker = <Linker<StoreLimits>>::new(engine);
        let instance = linker
            .instantiate_and_start(&mut store, &self.module)
            .map_err(|error| format!("cannot be instantiated: {}", said(&error)))?;
        Ok((store, instance))
    }

    /// One decision, or what went wrong, to be read after "the harness".
    pub fn next(&self, view: &View) -> Result<Decision, String> {
        let (mut store, instance) = self.instance()?;
        let memory = instance.get_memory(&store, "memory").ok_or("exports no memory")?;
        let next = next_of(&instance, &mut store).ok_or("exports no function next")?;
        let json = view.to_json();
        let pages = json.len().div_ceil(PAGE_BYTES) as u64;
        let at = memory.grow(&mut store, pages).map_err(|_| "leaves no memory for the View")?;
        let ptr = usize::try_from(at).map_err(|error| error.to_string())? * PAGE_BYTES;
        memory.write(&mut store, ptr, &json).map_err(|error| error.to_string())?;
        let (ptr, len) = (ptr.cast_signed(), json.len().cast_signed());
        let (ptr, len) = (i32::try_from(ptr), i32::try_from(len));
        let (Ok(ptr), Ok(len)) = (ptr, len) else { return Err("has too large a memory".to_owned()) };
        let answer = next.call(&mut store, (ptr, len)).map_err(|error| said(&error))?.cast_unsigned();
        let (ptr, len) = ((answer >> 32) as usize, (answer & 0xffff_ffff) as usize);
        if len > DECISION_BYTES_MAX {
            return Err(format!("returned {len} bytes, and {DECISION_BYTES_MAX} are allowed"));
        }
        let bytes = ptr.checked_add(len).and_then(|end| memory.data(&store).get(ptr..end));
        let bytes = bytes.ok_or("returned a place outside its memory")?;
        serde_json::from_slice(bytes).map_err(|error| format!("returned no decision: {error}"))
    }
}

impl Ask for &WasmHarness {
    fn view_version(&self) -> u32 {
        self.manifest.view
    }

    fn ask(&mut self, view: &View, _views: &Views) -> Result<Decision, HarnessError> {
        self.next(view).map_err(|what| HarnessError { harness: self.reference().to_string(), what })
    }
}

impl Ask for std::sync::Arc<WasmHarness> {
    fn view_version(&self) -> u32 {
        self.manifest.view
    }

    fn ask(&mut self, view: &View, views: &Views) -> Result<Decision, HarnessError> {
        (&mut &**self).ask(view, views)
    }
}

fn engine() -> Engine {
    let mut config = Config::default();
    config
        .consume_fuel(true)
        .allow_start_fn(false)
        .compilation_mode(CompilationMode::Eager)
        .enforced_limits(EnforcedLimits::strict())
        .wasm_multi_memory(false)
        .wasm_custom_page_sizes(false)
        .set_max_recursion_depth(RECURSION_MAX)
        .set_max_stack_height(STACK_BYTES_MAX);
    Engine::new(&config)
}

fn manifest(module: &Module) -> Result<Manifest, Error> {
    let section = module.custom_sections().find(|section| section.name() == SECTION).ok_or(Error::NoManifest)?;
    // Before the rest is understood: a later contract may say the rest otherwise.
    #[derive(Deserialize)]
    struct Abi {
        abi: u32,
    }
    let unreadable = |error: serde_json::Error| Error::Manifest(error.to_string());
    let Abi { abi } = serde_json::from_slice(section.data()).map_err(unreadable)?;
    if abi != ABI {
        return Err(Error::Abi(abi));
    }
    let manifest: Manifest = serde_json::from_slice(section.data()).map_err(unreadable)?;
    if !(1..=VERSION).contains(&manifest.view) {
        return Err(Error::View(manifest.view));
    }
    let is_plain = |name: &str| {
        !name.is_empty()
            && name.len() <= NAME_BYTES_MAX
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    if !is_plain(&manifest.name) {
        return Err(Error::Manifest("a name has 1 to 64 of a-z, 0-9 and -".to_owned()));
    }
    Ok(manifest)
}

fn next_of(instance: &wasmi::Instance, store: &mut Store<StoreLimits>) -> Option<TypedFunc<(i32, i32), i64>> {
    instance.get_typed_func(&*store, "next").ok()
}

/// What an execution error means for whoever wrote the harness.
fn said(error: &wasmi::Error) -> String {
    match error.as_trap_code() {
        Some(TrapCode::OutOfFuel) => format!("did not decide within {HARNESS_FUEL_MAX} instructions"),
        Some(TrapCode::StackOverflow) => "called itself too deep".to_owned(),
        Some(TrapCode::UnreachableCodeReached) => "panicked".to_owned(),
        Some(code) => format!("trapped: {code}"),
        None => format!("failed: {error}"),
    }
}

#[cfg(test)]
mod tests;
