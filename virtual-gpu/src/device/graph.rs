//! CUDA graphs: nodes, what each does and what it comes after, and graphs that were made ready to be launched.
//!
//! Nothing is computed, so what a node comes to is the time that it takes, and what it does to events and to small values. A launch goes through the nodes one after
//! another, in the order in which they were made, which is one of those that their dependencies allow.

use super::fault::Fault;
use super::handles::Handles;
use super::span::Span;

/// What kind of node it is; the numbers are those of `cudaGraphNodeType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeKind {
    /// A kernel, or a library call that would have run some.
    Kernel = 0,
    /// A copy.
    Copy = 1,
    /// A fill.
    Fill = 2,
    /// A function of the host.
    Host = 3,
    /// The launch of another graph.
    Graph = 4,
    /// Nothing: it has dependencies.
    Empty = 5,
    /// A wait for an event that something outside of the graph records.
    WaitEvent = 6,
    /// The record of an event that something outside of the graph waits for.
    RecordEvent = 7,
    /// Graphs of its own, of which a condition on the device says whether, which and how often they run.
    Conditional = 13,
}

impl NodeKind {
    /// The kind with that number.
    pub fn of(number: i32) -> Option<Self> {
        const PLAIN: [NodeKind; 8] = [
            NodeKind::Kernel,
            NodeKind::Copy,
            NodeKind::Fill,
            NodeKind::Host,
            NodeKind::Graph,
            NodeKind::Empty,
            NodeKind::WaitEvent,
            NodeKind::RecordEvent,
        ];
        PLAIN.into_iter().chain([Self::Conditional]).find(|&kind| kind as i32 == number)
    }
}

/// What part of a graph comes to.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Load {
    /// How many kernels.
    pub kernels: u64,
    /// How long it takes.
    pub secs: Span,
}

/// Something with values, which is done each time that its graph is launched. Addresses are numbers here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Rows of bytes are copied.
    Copy {
        /// To where, and how far its rows are apart.
        to: (u64, u64),
        /// From where, and how far its rows are apart.
        from: (u64, u64),
        /// How long a row is, and how many there are.
        rows: (u64, u64),
    },
    /// So many 32-bit words or, where it is not `wide`, bytes are set.
    Fill {
        /// Where.
        address: u64,
        /// To what.
        value: u32,
        /// How many.
        count: usize,
        /// Whether they are words.
        wide: bool,
    },
    /// A function of the host is called with its data.
    Call {
        /// Which.
        function: usize,
        /// With what.
        data: usize,
    },
}

/// A step of a launch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Step {
    /// The device works.
    Run(Load),
    /// What comes next waits for that event.
    Wait(u64),
    /// That event is recorded.
    Record(u64),
    /// Something is done with values.
    Do(Deed),
}

#[derive(Debug)]
struct Node {
    graph: u64,
    kind: NodeKind,
    steps: Vec<Step>,
    /// The nodes that it comes after.
    dependencies: Vec<u64>,
    /// The graphs that a condition chooses from. Their numbers stay where they are as long as the node lives.
    bodies: Box<[u64]>,
}

/// A graph that was made ready.
#[derive(Debug)]
struct Executable {
    steps: Vec<Step>,
    flags: u64,
}

/// The graphs of a device.
#[derive(Debug, Default)]
pub struct Graphs {
    /// Their nodes, in the order in which they were made.
    graphs: Handles<Vec<u64>>,
    nodes: Handles<Node>,
    executables: Handles<Executable>,
    /// Conditions, each with its graph.
    conditions: Handles<u64>,
}

impl Graphs {
    /// The graphs of that device.
    pub fn of_device(ordinal: u32) -> Self {
        let (graphs, nodes, executables) = (Handles::of_device(ordinal), Handles::of_device(ordinal), Handles::of_device(ordinal));
        Self { graphs, nodes, executables, conditions: Handles::of_device(ordinal) }
    }

    /// `cudaGraphCreate`: one without nodes.
    pub fn create(&mut self) -> u64 {
        self.graphs.insert(Vec::new())
    }

    /// Adds a node that comes after those, which are of the same graph.
    pub fn add(&mut self, graph: u64, kind: NodeKind, steps: Vec<Step>, dependencies: &[u64]) -> Result<u64, Fault> {
        self.nodes_of(graph)?;
        if dependencies.iter().any(|&node| self.nodes.get(node).is_ok_and(|node| node.graph != graph) || self.nodes.get(node).is_err()) {
            return Err(Fault::InvalidValue);
        }
        let node = self.nodes.insert(Node { graph, kind, steps, dependencies: dependencies.to_vec(), bodies: Box::default() });
        self.graphs.get_mut(graph)?.push(node);
        Ok(node)
    }

    /// `cudaGraphConditionalHandleCreate`: a condition of that graph.
    pub fn condition(&mut self, graph: u64) -> Result<u64, Fault> {
        self.nodes_of(graph)?;
        Ok(self.conditions.insert(graph))
    }

    /// Adds a node with so many graphs that this condition chooses from, which are empty.
    ///
    /// What the condition comes to is a value of the device, which nobody computes. A launch runs each of the graphs once: that is as long as any choice takes, but for
    /// a loop that runs more than once.
    pub fn add_conditional(&mut self, graph: u64, condition: u64, bodies: usize, dependencies: &[u64]) -> Result<u64, Fault> {
        const MOST: usize = 1 << 16;
        if !(1..=MOST).contains(&bodies) || self.conditions.get(condition).map_err(|_| Fault::InvalidValue)? != &graph {
            return Err(Fault::InvalidValue);
        }
        let node = self.add(graph, NodeKind::Conditional, Vec::new(), dependencies)?;
        let bodies = (0..bodies).map(|_| self.create()).collect();
        self.nodes.get_mut(node)?.bodies = bodies;
        Ok(node)
    }

    /// The graphs that the condition of a node chooses from.
    pub fn bodies_of(&self, node: u64) -> Result<&[u64], Fault> {
        self.node(node).map(|node| &*node.bodies)
    }

    /// One node comes after another one from here on.
    pub fn depend(&mut self, from: u64, to: u64) -> Result<(), Fault> {
        let graph = self.node(from)?.graph;
        let node = self.nodes.get_mut(to).map_err(|_| Fault::InvalidValue)?;
        if node.graph != graph || from == to || node.dependencies.contains(&from) {
            return Err(Fault::InvalidValue);
        }
        node.dependencies.push(from);
        Ok(())
    }

    /// A node takes so much longer than was said.
    pub fn lengthen(&mut self, node: u64, secs: Span) {
        if let Ok(node) = self.nodes.get_mut(node) {
            node.steps.push(Step::Run(Load { kernels: 0, secs }));
        }
    }

    fn node(&self, node: u64) -> Result<&Node, Fault> {
        self.nodes.get(node).map_err(|_| Fault::InvalidValue)
    }

    /// The nodes of a graph, in the order in which they were made.
    pub fn nodes_of(&self, graph: u64) -> Result<&[u64], Fault> {
        self.graphs.get(graph).map(Vec::as_slice).map_err(|_| Fault::InvalidValue)
    }

    /// Those of them that come after no other one.
    pub fn roots_of(&self, graph: u64) -> Result<Vec<u64>, Fault> {
        let is_root = |node: &u64| self.node(*node).is_ok_and(|node| node.dependencies.is_empty());
        Ok(self.nodes_of(graph)?.iter().copied().filter(is_root).collect())
    }

    /// What comes before what in a graph.
    pub fn edges_of(&self, graph: u64) -> Result<Vec<(u64, u64)>, Fault> {
        let edges = |&to: &u64| self.node(to).map(|node| node.dependencies.iter().map(move |&from| (from, to)));
        Ok(self.nodes_of(graph)?.iter().filter_map(|to| edges(to).ok()).flatten().collect())
    }

    /// What kind of node it is.
    pub fn kind_of(&self, node: u64) -> Result<NodeKind, Fault> {
        self.node(node).map(|node| node.kind)
    }

    /// The event that a node waits for or records.
    pub fn event_of(&self, node: u64, kind: NodeKind) -> Result<u64, Fault> {
        let node = self.node(node)?;
        match node.steps.first() {
            Some(Step::Wait(event) | Step::Record(event)) if node.kind == kind => Ok(*event),
            _ => Err(Fault::InvalidValue),
        }
    }

    /// The nodes that a node comes after.
    pub fn dependencies_of(&self, node: u64) -> Result<Vec<u64>, Fault> {
        self.node(node).map(|node| node.dependencies.clone())
    }

    /// The nodes that come after a node.
    pub fn dependents_of(&self, node: u64) -> Result<Vec<u64>, Fault> {
        let edges = self.edges_of(self.node(node)?.graph)?;
        Ok(edges.into_iter().filter(|(from, _)| *from == node).map(|(_, to)| to).collect())
    }

    /// Whether each of `nodes` is one of `ends` or comes before one of them.
    pub fn lead_to(&self, nodes: impl IntoIterator<Item = u64>, ends: &[u64]) -> bool {
        let (mut before, mut open) = (std::collections::BTreeSet::new(), ends.to_vec());
        while let Some(node) = open.pop() {
            if before.insert(node) {
                open.extend(self.node(node).into_iter().flat_map(|node| &node.dependencies));
            }
        }
        nodes.into_iter().all(|node| before.contains(&node))
    }

    /// `cudaGraphDestroyNode`.
    pub fn destroy_node(&mut self, node: u64) -> Result<(), Fault> {
        let Node { graph, bodies, .. } = self.nodes.remove(node).map_err(|_| Fault::InvalidValue)?;
        bodies.iter().try_for_each(|&body| self.destroy(body))?;
        if let Ok(nodes) = self.graphs.get_mut(graph) {
            nodes.retain(|&other| other != node);
        }
        let others = self.nodes_of(graph)?.to_vec();
        for other in others {
            self.nodes.get_mut(other)?.dependencies.retain(|&before| before != node);
        }
        Ok(())
    }

    /// `cudaGraphDestroy`.
    pub fn destroy(&mut self, graph: u64) -> Result<(), Fault> {
        let nodes = self.graphs.remove(graph).map_err(|_| Fault::InvalidValue)?;
        for node in nodes {
            let bodies = self.nodes.remove(node)?.bodies;
            bodies.iter().try_for_each(|&body| self.destroy(body))?;
        }
        Ok(())
    }

    fn steps_of(&self, graph: u64) -> Result<Vec<Step>, Fault> {
        let mut steps = Vec::new();
        self.add_steps_of(graph, &mut steps)?;
        Ok(steps)
    }

    fn add_steps_of(&self, graph: u64, steps: &mut Vec<Step>) -> Result<(), Fault> {
        for node in self.nodes_of(graph)?.iter().filter_map(|&node| self.node(node).ok()) {
            for step in &node.steps {
                match (steps.last_mut(), step) {
                    (Some(Step::Run(last)), Step::Run(load)) => {
                        last.kernels += load.kernels;
                        last.secs += load.secs;
                    }
                    _ => steps.push(*step),
                }
            }
            node.bodies.iter().try_for_each(|&body| self.add_steps_of(body, steps))?;
        }
        Ok(())
    }

    /// `cudaGraphInstantiate`: the graph itself may go.
    pub fn instantiate(&mut self, graph: u64, flags: u64) -> Result<u64, Fault> {
        let steps = self.steps_of(graph)?;
        Ok(self.executables.insert(Executable { steps, flags }))
    }

    /// `cudaGraphExecUpdate`: it does what that graph does from here on.
    pub fn update(&mut self, executable: u64, graph: u64) -> Result<(), Fault> {
        let steps = self.steps_of(graph)?;
        self.executables.get_mut(executable).map_err(|_| Fault::InvalidValue)?.steps = steps;
        Ok(())
    }

    fn executable(&self, executable: u64) -> Result<&Executable, Fault> {
        self.executables.get(executable).map_err(|_| Fault::InvalidValue)
    }

    /// The flags that it was made ready with.
    pub fn flags_of(&self, executable: u64) -> Result<u64, Fault> {
        self.executable(executable).map(|executable| executable.flags)
    }

    /// The steps of a launch.
    pub fn launched(&self, executable: u64) -> Result<&[Step], Fault> {
        self.executable(executable).map(|executable| executable.steps.as_slice())
    }

    /// `cudaGraphExecDestroy`.
    pub fn destroy_executable(&mut self, executable: u64) -> Result<(), Fault> {
        self.executables.remove(executable).map(drop).map_err(|_| Fault::InvalidValue)
    }

    /// How many exist, made ready or not.
    pub fn count(&self) -> usize {
        self.graphs.count() + self.executables.count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(secs: f64) -> Step {
        Step::Run(Load { kernels: 1, secs: Span([secs; 3]) })
    }

    #[test]
    fn a_graph_is_nodes_with_kinds_and_dependencies() {
        let mut graphs = Graphs::default();
        let graph = graphs.create();
        let mut add = |kind, dependencies: &[u64]| graphs.add(graph, kind, vec![run(1.0)], dependencies).expect("a node");
        let first = add(NodeKind::Kernel, &[]);
        let (left, right) = (add(NodeKind::Copy, &[first]), add(NodeKind::Fill, &[first]));
        let last = add(NodeKind::Empty, &[left, right]);
        assert_eq!(graphs.nodes_of(graph), Ok([first, left, right, last].as_slice()));
        assert_eq!((graphs.roots_of(graph), graphs.kind_of(left)), (Ok(vec![first]), Ok(NodeKind::Copy)));
        assert_eq!(graphs.edges_of(graph), Ok(vec![(first, left), (first, right), (left, last), (right, last)]));
        assert_eq!((graphs.dependencies_of(last), graphs.dependents_of(first)), (Ok(vec![left, right]), Ok(vec![left, right])));
        assert!(graphs.lead_to([first, right], &[last]) && graphs.lead_to([first], &[left]) && !graphs.lead_to([right], &[left]));
        // Nodes of another graph, and those that are gone, are none to come after.
        let other = graphs.create();
        assert_eq!(graphs.add(other, NodeKind::Empty, Vec::new(), &[first]), Err(Fault::InvalidValue));
        assert_eq!(graphs.destroy_node(left), Ok(()));
        assert_eq!(graphs.edges_of(graph), Ok(vec![(first, right), (right, last)]));
        assert_eq!(graphs.depend(first, last), Ok(()));
        assert_eq!(graphs.depend(first, last), Err(Fault::InvalidValue));
        assert_eq!(graphs.destroy(graph), Ok(()));
        assert_eq!((graphs.kind_of(first), graphs.nodes.count()), (Err(Fault::InvalidValue), 0));
    }

    #[test]
    fn a_launch_is_what_the_nodes_do_one_after_another() {
        let mut graphs = Graphs::default();
        let graph = graphs.create();
        let first = graphs.add(graph, NodeKind::Kernel, vec![run(1.0)], &[]).expect("a node");
        graphs.lengthen(first, Span([2.0; 3]));
        for step in [run(4.0), Step::Wait(7), run(8.0)] {
            graphs.add(graph, NodeKind::Kernel, vec![step], &[]).expect("a node");
        }
        let executable = graphs.instantiate(graph, 2).expect("an executable");
        assert_eq!((graphs.destroy(graph), graphs.flags_of(executable)), (Ok(()), Ok(2)));
        let before = Step::Run(Load { kernels: 2, secs: Span([7.0; 3]) });
        assert_eq!(graphs.launched(executable), Ok([before, Step::Wait(7), run(8.0)].as_slice()));
        let empty = graphs.create();
        assert_eq!((graphs.update(executable, empty), graphs.launched(executable)), (Ok(()), Ok([].as_slice())));
        assert_eq!((graphs.destroy_executable(executable), graphs.count()), (Ok(()), 1));
        assert_eq!(graphs.launched(executable), Err(Fault::InvalidValue));
    }

    #[test]
    fn a_condition_chooses_from_graphs_that_go_with_its_node() {
        let mut graphs = Graphs::default();
        let graph = graphs.create();
        let condition = graphs.condition(graph).expect("a condition");
        let other = graphs.create();
        for (of, condition, bodies) in
            [(graph, condition + 1, 1), (other, condition, 1), (graph, condition, 0), (graph, condition, 1 << 20)]
        {
            assert_eq!(graphs.add_conditional(of, condition, bodies, &[]), Err(Fault::InvalidValue));
        }
        let node = graphs.add_conditional(graph, condition, 2, &[]).expect("a node");
        let [first, second] = graphs.bodies_of(node).expect("its graphs").try_into().expect("two graphs");
        graphs.add(first, NodeKind::Kernel, vec![run(1.0)], &[]).expect("a node");
        let inner = graphs.condition(second).expect("a condition");
        let inner = graphs.add_conditional(second, inner, 1, &[]).expect("a node");
        let [third] = graphs.bodies_of(inner).expect("its graph").try_into().expect("one graph");
        graphs.add(third, NodeKind::Kernel, vec![run(2.0)], &[]).expect("a node");
        let executable = graphs.instantiate(graph, 0).expect("an executable");
        assert_eq!(graphs.launched(executable), Ok([Step::Run(Load { kernels: 2, secs: Span([3.0; 3]) })].as_slice()));
        assert_eq!((graphs.destroy_node(inner), graphs.nodes_of(third)), (Ok(()), Err(Fault::InvalidValue)));
        assert_eq!((graphs.destroy(graph), graphs.nodes_of(first), graphs.nodes.count()), (Ok(()), Err(Fault::InvalidValue), 0));
    }
}
