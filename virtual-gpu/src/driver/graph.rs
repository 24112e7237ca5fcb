//! Captures and graphs, by the driver's names.

use super::error::{answer, ready};
use crate::cudart::{Asked, begin_capture, capture_status, end_capture, go_on_after, launch_graph, list, tell_capture};
use crate::devices::{active_device, device_of};
use crate::ffi::{Address, Given, Handle, InOut, Out};

exports! { answer, ready;
    fn cuStreamBeginCapture_v2(stream: Handle, _mode: i32) {
        begin_capture(stream)
    }

    fn cuStreamEndCapture(stream: Handle, graph: Out<u64>) {
        end_capture(stream, graph)
    }

    fn cuStreamIsCapturing(stream: Handle, captured: Out<i32>) {
        captured.set(capture_status(stream)?)
    }

    fn cuStreamGetCaptureInfo_v2(
        stream: Handle, status: Out<i32>, id: Out<u64>, graph: Out<u64>, nodes: Out<u64>, count: Out<usize>,
    ) {
        tell_capture(stream, &Asked { status, id, graph, nodes, count })
    }

    fn cuStreamGetCaptureInfo_v3(
        stream: Handle, status: Out<i32>, id: Out<u64>, graph: Out<u64>, nodes: Out<u64>, edges: Out<u64>, count: Out<usize>,
    ) {
        tell_capture(stream, &Asked { status, id, graph, nodes, count })?;
        edges.set_if_wanted(0);
        Ok(())
    }

    fn cuGraphCreate(graph: Out<u64>, _flags: u32) {
        let made = active_device()?.captures().graphs.create();
        graph.set(made)
    }

    fn cuGraphNodeGetType(node: Handle, kind: Out<i32>) {
        let found = device_of(node)?.captures().graphs.kind_of(node)?;
        kind.set(found as i32)
    }

    fn cuGraphInstantiateWithFlags(executable: Out<u64>, graph: Handle, flags: u64) {
        let made = device_of(graph)?.captures().graphs.instantiate(graph, flags)?;
        executable.set(made)
    }

    fn cuGraphExecGetFlags(executable: Handle, flags: Out<u64>) {
        let found = device_of(executable)?.captures().graphs.flags_of(executable)?;
        flags.set(found)
    }

    fn cuGraphUpload(executable: Handle, stream: Handle) {
        device_of(stream)?.streams().check(stream)?;
        device_of(executable)?.captures().graphs.launched(executable).map(drop)
    }

    fn cuGraphDestroyNode(node: Handle) {
        device_of(node)?.captures().graphs.destroy_node(node)
    }

    fn cuGraphDestroy(graph: Handle) {
        device_of(graph)?.captures().graphs.destroy(graph)
    }

    fn cuGraphExecDestroy(executable: Handle) {
        device_of(executable)?.captures().graphs.destroy_executable(executable)
    }
}

unsafe_exports! { answer, ready;
    fn cuGraphGetNodes(graph: Handle, nodes: Out<u64>, count: InOut<usize>) {
        let found = device_of(graph)?.captures().graphs.nodes_of(graph)?.to_vec();
        list(&found, nodes, &count)
    }

    fn cuGraphGetRootNodes(graph: Handle, nodes: Out<u64>, count: InOut<usize>) {
        let found = device_of(graph)?.captures().graphs.roots_of(graph)?;
        list(&found, nodes, &count)
    }

    fn cuStreamUpdateCaptureDependencies_v2(stream: Handle, dependencies: Given<u64>, _data: Address, count: usize, flags: u32) {
        go_on_after(stream, &dependencies.to_vec(count), flags)
    }

    fn cuGraphLaunch(executable: Handle, stream: Handle) {
        launch_graph(executable, stream)
    }
}
