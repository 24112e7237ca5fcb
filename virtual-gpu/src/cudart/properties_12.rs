//! `cudaDeviceProp` of CUDA 12: what CUDA 13 has left out stands between the other fields.

use super::properties::{DeviceProperties, attribute};
use crate::device::Device;

/// The structure of CUDA 12's `driver_types.h`, field by field.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct DeviceProperties12 {
    name: [u8; 256],
    uuid: [u8; 16],
    luid: [u8; 8],
    luid_device_node_mask: u32,
    total_global_mem: usize,
    shared_mem_per_block: usize,
    regs_per_block: i32,
    warp_size: i32,
    mem_pitch: usize,
    max_threads_per_block: i32,
    max_threads_dim: [i32; 3],
    max_grid_size: [i32; 3],
    clock_rate: i32,
    total_const_mem: usize,
    major: i32,
    minor: i32,
    texture_alignment: usize,
    texture_pitch_alignment: usize,
    device_overlap: i32,
    multi_processor_count: i32,
    kernel_exec_timeout_enabled: i32,
    integrated: i32,
    can_map_host_memory: i32,
    compute_mode: i32,
    textures: [i32; 40],
    surface_alignment: usize,
    concurrent_kernels: i32,
    ecc_enabled: i32,
    pci_bus_id: i32,
    pci_device_id: i32,
    pci_domain_id: i32,
    tcc_driver: i32,
    async_engine_count: i32,
    unified_addressing: i32,
    memory_clock_rate: i32,
    memory_bus_width: i32,
    l2_cache_size: i32,
    persisting_l2_cache_max_size: i32,
    max_threads_per_multi_processor: i32,
    stream_priorities_supported: i32,
    global_l1_cache_supported: i32,
    local_l1_cache_supported: i32,
    shared_mem_per_multiprocessor: usize,
    regs_per_multiprocessor: i32,
    managed_memory: i32,
    is_multi_gpu_board: i32,
    multi_gpu_board_group_id: i32,
    host_native_atomic_supported: i32,
    single_to_double_precision_perf_ratio: i32,
    pageable_memory_access: i32,
    concurrent_managed_access: i32,
    compute_preemption_supported: i32,
    can_use_host_pointer_for_registered_mem: i32,
    cooperative_launch: i32,
    cooperative_multi_device_launch: i32,
    shared_mem_per_block_optin: usize,
    pageable_memory_access_uses_host_page_tables: i32,
    direct_managed_mem_access_from_host: i32,
    max_blocks_per_multi_processor: i32,
    access_policy_max_window_size: i32,
    reserved_shared_mem_per_block: usize,
    host_register_supported: i32,
    sparse_cuda_array_supported: i32,
    host_register_read_only_supported: i32,
    timeline_semaphore_interop_supported: i32,
    memory_pools_supported: i32,
    gpu_direct_rdma_supported: i32,
    gpu_direct_rdma_flush_writes_options: u32,
    gpu_direct_rdma_writes_ordering: i32,
    memory_pool_supported_handle_types: u32,
    deferred_mapping_cuda_array_supported: i32,
    ipc_event_supported: i32,
    cluster_launch: i32,
    unified_function_pointers: i32,
    reserved: [i32; 63],
}

/// `cudaDevAttrClockRate`.
const CLOCK_RATE: i32 = 13;

/// Takes these fields as they are in CUDA 13's structure.
macro_rules! with_those_of {
    ($newer:ident, $($field:ident)*; $($name:ident: $value:expr),*) => {
        DeviceProperties12 { $($field: $newer.$field,)* $($name: $value,)* }
    };
}

impl DeviceProperties12 {
    /// What the device says of itself.
    pub(crate) fn of(device: &Device) -> Self {
        let newer = DeviceProperties::of(device);
        with_those_of! {
            newer,
            name uuid luid luid_device_node_mask total_global_mem shared_mem_per_block regs_per_block warp_size mem_pitch
            max_threads_per_block max_threads_dim max_grid_size total_const_mem major minor texture_alignment
            texture_pitch_alignment multi_processor_count integrated can_map_host_memory surface_alignment concurrent_kernels
            ecc_enabled pci_bus_id pci_device_id pci_domain_id tcc_driver async_engine_count unified_addressing memory_bus_width
            l2_cache_size persisting_l2_cache_max_size max_threads_per_multi_processor stream_priorities_supported
            global_l1_cache_supported local_l1_cache_supported shared_mem_per_multiprocessor regs_per_multiprocessor managed_memory
            is_multi_gpu_board multi_gpu_board_group_id host_native_atomic_supported pageable_memory_access
            concurrent_managed_access compute_preemption_supported can_use_host_pointer_for_registered_mem cooperative_launch
            shared_mem_per_block_optin pageable_memory_access_uses_host_page_tables direct_managed_mem_access_from_host
            max_blocks_per_multi_processor access_policy_max_window_size reserved_shared_mem_per_block host_register_supported
            sparse_cuda_array_supported host_register_read_only_supported timeline_semaphore_interop_supported
            memory_pools_supported gpu_direct_rdma_supported gpu_direct_rdma_flush_writes_options gpu_direct_rdma_writes_ordering
            memory_pool_supported_handle_types deferred_mapping_cuda_array_supported ipc_event_supported cluster_launch
            unified_function_pointers;
            clock_rate: attribute(device, CLOCK_RATE), device_overlap: 1, kernel_exec_timeout_enabled: 0, compute_mode: 0, textures: [0; 40], memory_clock_rate: 0,
            single_to_double_precision_perf_ratio: 0, cooperative_multi_device_launch: 0, reserved: [0; 63]
        }
    }
}

#[cfg(test)]
mod tests {
    use std::mem::{offset_of, size_of};

    use super::*;

    /// Offsets as a C compiler gives them for `driver_types.h` of CUDA 12.8.
    #[test]
    fn the_layout_is_that_of_the_header() {
        assert_eq!(size_of::<DeviceProperties12>(), 1032);
        assert_eq!(offset_of!(DeviceProperties12, total_global_mem), 288);
        assert_eq!(offset_of!(DeviceProperties12, clock_rate), 348);
        assert_eq!(offset_of!(DeviceProperties12, major), 360);
        assert_eq!(offset_of!(DeviceProperties12, multi_processor_count), 388);
        assert_eq!(offset_of!(DeviceProperties12, l2_cache_size), 616);
        assert_eq!(offset_of!(DeviceProperties12, shared_mem_per_multiprocessor), 640);
        assert_eq!(offset_of!(DeviceProperties12, cluster_launch), 772);
    }
}
