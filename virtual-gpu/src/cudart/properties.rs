//! `cudaDeviceProp` of CUDA 13 and the device attributes, filled from the GPU profile.

use crate::device::{Architecture, Device};

/// The structure of `driver_types.h`, field by field. A field whose value the profile does not give is 0.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct DeviceProperties {
    pub(super) name: [u8; 256],
    pub(super) uuid: [u8; 16],
    pub(super) luid: [u8; 8],
    pub(super) luid_device_node_mask: u32,
    pub(super) total_global_mem: usize,
    pub(super) shared_mem_per_block: usize,
    pub(super) regs_per_block: i32,
    pub(super) warp_size: i32,
    pub(super) mem_pitch: usize,
    pub(super) max_threads_per_block: i32,
    pub(super) max_threads_dim: [i32; 3],
    pub(super) max_grid_size: [i32; 3],
    pub(super) total_const_mem: usize,
    pub(super) major: i32,
    pub(super) minor: i32,
    pub(super) texture_alignment: usize,
    pub(super) texture_pitch_alignment: usize,
    pub(super) multi_processor_count: i32,
    pub(super) integrated: i32,
    pub(super) can_map_host_memory: i32,
    /// Limits of textures and surfaces, which PyTorch never uses.
    pub(super) textures: [i32; 39],
    pub(super) surface_alignment: usize,
    pub(super) concurrent_kernels: i32,
    pub(super) ecc_enabled: i32,
    pub(super) pci_bus_id: i32,
    pub(super) pci_device_id: i32,
    pub(super) pci_domain_id: i32,
    pub(super) tcc_driver: i32,
    pub(super) async_engine_count: i32,
    pub(super) unified_addressing: i32,
    pub(super) memory_bus_width: i32,
    pub(super) l2_cache_size: i32,
    pub(super) persisting_l2_cache_max_size: i32,
    pub(super) max_threads_per_multi_processor: i32,
    pub(super) stream_priorities_supported: i32,
    pub(super) global_l1_cache_supported: i32,
    pub(super) local_l1_cache_supported: i32,
    pub(super) shared_mem_per_multiprocessor: usize,
    pub(super) regs_per_multiprocessor: i32,
    pub(super) managed_memory: i32,
    pub(super) is_multi_gpu_board: i32,
    pub(super) multi_gpu_board_group_id: i32,
    pub(super) host_native_atomic_supported: i32,
    pub(super) pageable_memory_access: i32,
    pub(super) concurrent_managed_access: i32,
    pub(super) compute_preemption_supported: i32,
    pub(super) can_use_host_pointer_for_registered_mem: i32,
    pub(super) cooperative_launch: i32,
    pub(super) shared_mem_per_block_optin: usize,
    pub(super) pageable_memory_access_uses_host_page_tables: i32,
    pub(super) direct_managed_mem_access_from_host: i32,
    pub(super) max_blocks_per_multi_processor: i32,
    pub(super) access_policy_max_window_size: i32,
    pub(super) reserved_shared_mem_per_block: usize,
    pub(super) host_register_supported: i32,
    pub(super) sparse_cuda_array_supported: i32,
    pub(super) host_register_read_only_supported: i32,
    pub(super) timeline_semaphore_interop_supported: i32,
    pub(super) memory_pools_supported: i32,
    pub(super) gpu_direct_rdma_supported: i32,
    pub(super) gpu_direct_rdma_flush_writes_options: u32,
    pub(super) gpu_direct_rdma_writes_ordering: i32,
    pub(super) memory_pool_supported_handle_types: u32,
    pub(super) deferred_mapping_cuda_array_supported: i32,
    pub(super) ipc_event_supported: i32,
    pub(super) cluster_launch: i32,
    pub(super) unified_function_pointers: i32,
    pub(super) device_numa_config: i32,
    pub(super) device_numa_id: i32,
    pub(super) mps_enabled: i32,
    pub(super) host_numa_id: i32,
    pub(super) gpu_pci_device_id: u32,
    pub(super) gpu_pci_subsystem_id: u32,
    pub(super) host_numa_multinode_ipc_supported: i32,
    pub(super) reserved: [i32; 56],
}

const MAX_BLOCK: [i32; 3] = [1024, 1024, 64];
const MAX_GRID: [i32; 3] = [i32::MAX, 65535, 65535];
const TEXTURE_ALIGNMENT: i32 = 512;
const PITCH_ALIGNMENT: i32 = 32;
/// Copy engines: one a direction.
const COPY_ENGINES: i32 = 2;

fn int(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

fn l2_cache_bytes(device: &Device) -> i32 {
    i32::try_from(device.profile.l2_cache_bytes.value).unwrap_or(i32::MAX)
}

impl DeviceProperties {
    /// What the device says of itself.
    pub(crate) fn of(device: &Device) -> Self {
        let architecture = &device.architecture;
        // SAFETY: the structure holds numbers and arrays of numbers, for which all zeros is a value.
        let mut properties: Self = unsafe { std::mem::zeroed() };
        let name = device.name();
        let length = name.len().min(properties.name.len() - 1);
        properties.name[..length].copy_from_slice(&name.as_bytes()[..length]);
        properties.uuid = device.uuid();
        properties.total_global_mem = device.profile.memory_bytes.value as usize;
        properties.shared_mem_per_block = Architecture::SHARED_BYTES_PER_BLOCK as usize;
        properties.regs_per_block = int(Architecture::REGISTERS);
        properties.warp_size = int(Architecture::WARP_SIZE);
        properties.mem_pitch = i32::MAX as usize;
        properties.max_threads_per_block = int(Architecture::THREADS_PER_BLOCK);
        properties.max_threads_dim = MAX_BLOCK;
        properties.max_grid_size = MAX_GRID;
        properties.total_const_mem = Architecture::CONSTANT_BYTES as usize;
        properties.major = int(architecture.major);
        properties.minor = int(architecture.minor);
        properties.texture_alignment = TEXTURE_ALIGNMENT as usize;
        properties.texture_pitch_alignment = PITCH_ALIGNMENT as usize;
        properties.multi_processor_count = int(device.profile.multiprocessors.value);
        properties.can_map_host_memory = 1;
        properties.surface_alignment = TEXTURE_ALIGNMENT as usize;
        properties.concurrent_kernels = 1;
        (properties.pci_domain_id, properties.pci_bus_id, properties.pci_device_id) = device.pci_address();
        properties.async_engine_count = COPY_ENGINES;
        properties.unified_addressing = 1;
        properties.l2_cache_size = l2_cache_bytes(device);
        properties.max_threads_per_multi_processor = int(architecture.threads_per_multiprocessor);
        properties.stream_priorities_supported = 1;
        properties.global_l1_cache_supported = 1;
        properties.local_l1_cache_supported = 1;
        properties.shared_mem_per_multiprocessor = architecture.shared_bytes_per_multiprocessor as usize;
        properties.regs_per_multiprocessor = int(Architecture::REGISTERS);
        properties.managed_memory = 1;
        properties.concurrent_managed_access = 1;
        properties.compute_preemption_supported = 1;
        properties.can_use_host_pointer_for_registered_mem = 1;
        properties.cooperative_launch = 1;
        properties.shared_mem_per_block_optin = architecture.shared_bytes_per_block_optin as usize;
        properties.max_blocks_per_multi_processor = int(architecture.blocks_per_multiprocessor);
        properties.reserved_shared_mem_per_block = Architecture::RESERVED_SHARED_BYTES_PER_BLOCK as usize;
        properties.host_register_supported = 1;
        properties.cluster_launch = i32::from(architecture.major >= 9);
        properties.memory_pools_supported = 1;
        properties.host_numa_id = -1;
        properties
    }
}

/// One attribute by its number in `cudaDeviceAttr`, which is the driver's too. Attributes of what the virtual GPU does not
/// have (textures, IPC, ...) are 0, as on a device without it.
pub(crate) fn attribute(device: &Device, number: i32) -> i32 {
    let architecture = &device.architecture;
    match number {
        1 => int(Architecture::THREADS_PER_BLOCK),
        2..=4 => MAX_BLOCK[(number - 2) as usize],
        5..=7 => MAX_GRID[(number - 5) as usize],
        8 => int(Architecture::SHARED_BYTES_PER_BLOCK),
        9 => int(Architecture::CONSTANT_BYTES),
        10 => int(Architecture::WARP_SIZE),
        11 => i32::MAX,                                     // pitch of copies
        12 | 82 => int(Architecture::REGISTERS),            // of a block, of a multiprocessor
        13 => (device.profile.clock_hz.value / 1e3) as i32, // kilohertz
        14 | 30 => TEXTURE_ALIGNMENT,                       // of textures, of surfaces
        15 | 31 => 1,                                       // copies beside kernels, kernels beside kernels
        16 => int(device.profile.multiprocessors.value),
        // Mapped host memory, unified addresses, priorities, L1, managed memory, preemption, cooperative launches, registered memory.
        19 | 41 | 78 | 79 | 80 | 83 | 89 | 90 | 91 | 95 | 99 => 1,
        33 => device.pci_address().1,
        34 => device.pci_address().2,
        38 => l2_cache_bytes(device),
        39 => int(architecture.threads_per_multiprocessor),
        40 => COPY_ENGINES,
        50 => device.pci_address().0,
        51 => PITCH_ALIGNMENT,
        75 => int(architecture.major),
        76 => int(architecture.minor),
        81 => int(architecture.shared_bytes_per_multiprocessor),
        97 => int(architecture.shared_bytes_per_block_optin),
        102 => 1, // the driver's virtual-memory interface
        106 => int(architecture.blocks_per_multiprocessor),
        111 => int(Architecture::RESERVED_SHARED_BYTES_PER_BLOCK),
        115 => 1, // memory pools
        120 => i32::from(architecture.major >= 9),
        134 => -1, // no NUMA node
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::mem::{offset_of, size_of};

    use super::*;

    /// Offsets as a C compiler gives them for `driver_types.h` of CUDA 13.0.
    #[test]
    fn the_layout_is_that_of_the_header() {
        assert_eq!(size_of::<DeviceProperties>(), 1008);
        assert_eq!(offset_of!(DeviceProperties, total_global_mem), 288);
        assert_eq!(offset_of!(DeviceProperties, major), 360);
        assert_eq!(offset_of!(DeviceProperties, multi_processor_count), 384);
        assert_eq!(offset_of!(DeviceProperties, textures), 396);
        assert_eq!(offset_of!(DeviceProperties, surface_alignment), 552);
        assert_eq!(offset_of!(DeviceProperties, pci_bus_id), 568);
        assert_eq!(offset_of!(DeviceProperties, l2_cache_size), 596);
        assert_eq!(offset_of!(DeviceProperties, shared_mem_per_multiprocessor), 624);
        assert_eq!(offset_of!(DeviceProperties, shared_mem_per_block_optin), 672);
        assert_eq!(offset_of!(DeviceProperties, reserved_shared_mem_per_block), 696);
        assert_eq!(offset_of!(DeviceProperties, cluster_launch), 748);
        assert_eq!(offset_of!(DeviceProperties, host_numa_multinode_ipc_supported), 780);
        assert_eq!(offset_of!(DeviceProperties, reserved), 784);
    }
}
