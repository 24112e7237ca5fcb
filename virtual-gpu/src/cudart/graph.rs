//! CUDA graphs: their nodes, and launches.

use super::error::answer;
use super::memory::{copy_now, fill_now};
use super::version::is_cuda_12;
use crate::decisions::decided;
use crate::device::{Deed, Fault, NodeKind, Step};
use crate::devices::{active_device, device_of};
use crate::ffi::{Address, Given, GivenText, Handle, InOut, Out, call_host, host_function};
use crate::unsupported;

/// The head of `cudaGraphNodeParams`: the kind of the node, and what those that are looked at have next.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct NodeParameters {
    kind: i32,
    reserved: [i32; 3],
    /// The event of a node of one, or the condition of a conditional node.
    first: u64,
    /// Of a conditional node: whether it is an `if`, a loop or a choice.
    _choice: i32,
    /// Of a conditional node: how many graphs it chooses from.
    bodies: u32,
    /// Of a conditional node: where those graphs stand, which is told and not given.
    body_list: u64,
}

/// `cudaGraphExecUpdateResultInfo`: all went well, and no node is to blame.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct UpdateResult {
    result: i32,
    nodes: [u64; 2],
}

/// Gives what a list holds: how long it is, and as much of it as there is room for where the caller has any.
///
/// # Safety
/// Where `place` is not null, there is room for as many as stand in `count`.
pub(crate) unsafe fn list(found: &[u64], place: Out<u64>, count: &InOut<usize>) -> Result<(), Fault> {
    if place.is_null() {
        return count.set(found.len());
    }
    // Where there is room for more the rest is empty, as in CUDA.
    let room = count.get().ok_or(Fault::InvalidValue)?;
    let given: Vec<u64> = found.iter().copied().chain(std::iter::repeat(0)).take(room).collect();
    // SAFETY: as the caller says.
    unsafe { place.set_all(&given) };
    count.set(found.len().min(room))
}

/// The same for nodes at the other end of edges. In CUDA 13 the edges' data stand in front of the number: here they have none, which zeros say.
///
/// # Safety
/// As for [`list`], and for as many data where the caller wants any.
unsafe fn list_ends(found: &[u64], place: Out<u64>, data: InOut<usize>, count: InOut<usize>) -> Result<(), Fault> {
    if is_cuda_12() {
        // SAFETY: as the caller says.
        return unsafe { list(found, place, &data) };
    }
    if let (false, Some(room)) = (place.is_null(), count.get()) {
        // SAFETY: as the caller says.
        unsafe { data.place().set_all(&vec![0; room]) };
    }
    // SAFETY: as the caller says.
    unsafe { list(found, place, &count) }
}

/// Makes a node that comes after those.
///
/// # Safety
/// So many dependencies stand there, or it is null.
unsafe fn add_node(graph: u64, dependencies: Given<u64>, count: usize, kind: NodeKind, steps: Vec<Step>) -> Result<u64, Fault> {
    // SAFETY: as the caller says.
    let dependencies = unsafe { dependencies.to_vec(count) };
    if dependencies.len() != count {
        return Err(Fault::InvalidValue);
    }
    device_of(graph)?.captures().graphs.add(graph, kind, steps, &dependencies)
}

/// A node by its parameters: of what it does, only events and conditions are looked at.
///
/// # Safety
/// As for [`add_node`].
unsafe fn add_node_of(
    node: Out<u64>,
    graph: u64,
    dependencies: Given<u64>,
    count: usize,
    place: &InOut<NodeParameters>,
) -> Result<(), Fault> {
    let parameters = place.get().ok_or(Fault::InvalidValue)?;
    let Some(kind) = NodeKind::of(parameters.kind) else {
        unsupported::met("cudaGraphAddNode");
        return Err(Fault::NotSupported);
    };
    let steps = match kind {
        NodeKind::WaitEvent => vec![Step::Wait(parameters.first)],
        NodeKind::RecordEvent => vec![Step::Record(parameters.first)],
        NodeKind::Conditional => {
            // SAFETY: as the caller says.
            let dependencies = unsafe { dependencies.to_vec(count) };
            let graphs = &mut device_of(graph)?.captures().graphs;
            let made = graphs.add_conditional(graph, parameters.first, parameters.bodies as usize, &dependencies)?;
            decided("a condition of a CUDA graph: each of its graphs runs once".to_owned());
            place.set(NodeParameters { body_list: graphs.bodies_of(made)?.as_ptr() as u64, ..parameters })?;
            return node.set(made);
        }
        _ => Vec::new(),
    };
    // SAFETY: as the caller says.
    node.set(unsafe { add_node(graph, dependencies, count, kind, steps)? })
}

/// Launches a graph, and does what it does with values.
///
/// # Safety
/// What was captured with memory of the host and its functions may still be done.
pub(crate) unsafe fn launch_graph(executable: u64, stream: u64) -> Result<(), Fault> {
    for deed in device_of(executable)?.launch_graph(executable, stream)? {
        match deed {
            // SAFETY: as the caller says; of the device's memory the books tell what is still there.
            Deed::Copy { to, from, rows } => unsafe { copy_now(to, from, rows)? },
            // SAFETY: as above.
            Deed::Fill { address, value, count, wide } => unsafe { fill_now(address, value, count, wide)? },
            // SAFETY: the function was captured as one of that type, and the caller says that it may be called.
            Deed::Call { function, data } => unsafe { call_host(host_function(function), data as _)? },
        }
    }
    Ok(())
}

exports! { answer;
    fn cudaGraphCreate(graph: Out<u64>, _flags: u32) {
        let made = active_device()?.captures().graphs.create();
        graph.set(made)
    }

    fn cudaGraphNodeGetType(node: Handle, kind: Out<i32>) {
        let found = device_of(node)?.captures().graphs.kind_of(node)?;
        kind.set(found as i32)
    }

    fn cudaGraphEventRecordNodeGetEvent(node: Handle, event: Out<u64>) {
        let found = device_of(node)?.captures().graphs.event_of(node, NodeKind::RecordEvent)?;
        event.set(found)
    }

    fn cudaGraphEventWaitNodeGetEvent(node: Handle, event: Out<u64>) {
        let found = device_of(node)?.captures().graphs.event_of(node, NodeKind::WaitEvent)?;
        event.set(found)
    }

    fn cudaGraphDestroyNode(node: Handle) {
        device_of(node)?.captures().graphs.destroy_node(node)
    }

    fn cudaGraphConditionalHandleCreate(condition: Out<u64>, graph: Handle, _value: u32, _flags: u32) {
        let made = device_of(graph)?.captures().graphs.condition(graph)?;
        condition.set(made)
    }

    fn cudaGraphInstantiate(executable: Out<u64>, graph: Handle, flags: u64) {
        let made = device_of(graph)?.captures().graphs.instantiate(graph, flags)?;
        executable.set(made)
    }

    fn cudaGraphInstantiateWithFlags(executable: Out<u64>, graph: Handle, flags: u64) {
        let made = device_of(graph)?.captures().graphs.instantiate(graph, flags)?;
        executable.set(made)
    }

    fn cudaGraphExecGetFlags(executable: Handle, flags: Out<u64>) {
        let found = device_of(executable)?.captures().graphs.flags_of(executable)?;
        flags.set(found)
    }

    fn cudaGraphExecUpdate(executable: Handle, graph: Handle, result: Out<UpdateResult>) {
        device_of(executable)?.captures().graphs.update(executable, graph)?;
        result.set_if_wanted(UpdateResult { result: 0, nodes: [0; 2] });
        Ok(())
    }

    fn cudaGraphUpload(executable: Handle, stream: Handle) {
        device_of(stream)?.streams().check(stream)?;
        device_of(executable)?.captures().graphs.launched(executable).map(drop)
    }

    fn cudaGraphDestroy(graph: Handle) {
        device_of(graph)?.captures().graphs.destroy(graph)
    }

    fn cudaGraphExecDestroy(executable: Handle) {
        device_of(executable)?.captures().graphs.destroy_executable(executable)
    }

    fn cudaGraphDebugDotPrint(graph: Handle, path: GivenText, _flags: u32) {
        let text = {
            let captures = device_of(graph)?.captures();
            let nodes = captures.graphs.nodes_of(graph)?;
            let node = |&node: &u64| captures.graphs.kind_of(node).map(|kind| format!("\"{node:#x}\" [label=\"{kind:?}\"]\n"));
            let nodes = nodes.iter().map(node).collect::<Result<String, Fault>>()?;
            let edges = captures.graphs.edges_of(graph)?.into_iter().map(|(from, to)| format!("\"{from:#x}\" -> \"{to:#x}\"\n"));
            format!("digraph dot {{\n{nodes}{}}}\n", edges.collect::<String>())
        };
        std::fs::write(path.get().ok_or(Fault::InvalidValue)?, text).map_err(|_| Fault::InvalidValue)
    }
}

unsafe_exports! { answer;
    fn cudaGraphGetNodes(graph: Handle, nodes: Out<u64>, count: InOut<usize>) {
        let found = device_of(graph)?.captures().graphs.nodes_of(graph)?.to_vec();
        list(&found, nodes, &count)
    }

    fn cudaGraphGetRootNodes(graph: Handle, nodes: Out<u64>, count: InOut<usize>) {
        let found = device_of(graph)?.captures().graphs.roots_of(graph)?;
        list(&found, nodes, &count)
    }

    fn cudaGraphGetEdges(graph: Handle, from: Out<u64>, to: Out<u64>, data: InOut<usize>, count: InOut<usize>) {
        let edges = device_of(graph)?.captures().graphs.edges_of(graph)?;
        let (froms, tos): (Vec<u64>, Vec<u64>) = edges.into_iter().unzip();
        if !to.is_null() {
            let room = if is_cuda_12() { data.get() } else { count.get() };
            to.set_all(&tos[..tos.len().min(room.ok_or(Fault::InvalidValue)?)]);
        }
        list_ends(&froms, from, data, count)
    }

    fn cudaGraphNodeGetDependencies(node: Handle, nodes: Out<u64>, data: InOut<usize>, count: InOut<usize>) {
        let found = device_of(node)?.captures().graphs.dependencies_of(node)?;
        list_ends(&found, nodes, data, count)
    }

    fn cudaGraphNodeGetDependentNodes(node: Handle, nodes: Out<u64>, data: InOut<usize>, count: InOut<usize>) {
        let found = device_of(node)?.captures().graphs.dependents_of(node)?;
        list_ends(&found, nodes, data, count)
    }

    fn cudaGraphAddEmptyNode(node: Out<u64>, graph: Handle, dependencies: Given<u64>, count: usize) {
        node.set(add_node(graph, dependencies, count, NodeKind::Empty, Vec::new())?)
    }

    fn cudaGraphAddEventRecordNode(node: Out<u64>, graph: Handle, dependencies: Given<u64>, count: usize, event: Handle) {
        device_of(event)?.events().mark(event)?;
        node.set(add_node(graph, dependencies, count, NodeKind::RecordEvent, vec![Step::Record(event)])?)
    }

    fn cudaGraphAddEventWaitNode(node: Out<u64>, graph: Handle, dependencies: Given<u64>, count: usize, event: Handle) {
        device_of(event)?.events().mark(event)?;
        node.set(add_node(graph, dependencies, count, NodeKind::WaitEvent, vec![Step::Wait(event)])?)
    }

    // In CUDA 12 the number stands where CUDA 13 has the data of edges, and the parameters follow it.
    fn cudaGraphAddNode(
        node: Out<u64>, graph: Handle, dependencies: Given<u64>, data: Address, count: usize, parameters: InOut<NodeParameters>,
    ) {
        if is_cuda_12() {
            add_node_of(node, graph, dependencies, data as usize, &InOut::at(count as u64))
        } else {
            add_node_of(node, graph, dependencies, count, &parameters)
        }
    }

    fn cudaGraphAddDependencies(graph: Handle, from: Given<u64>, to: Given<u64>, data: Address, count: usize) {
        let count = if is_cuda_12() { data as usize } else { count };
        for (from, to) in from.to_vec(count).into_iter().zip(to.to_vec(count)) {
            device_of(graph)?.captures().graphs.depend(from, to)?;
        }
        Ok(())
    }

    fn cudaGraphLaunch(executable: Handle, stream: Handle) {
        launch_graph(executable, stream)
    }
}
