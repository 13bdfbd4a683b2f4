// What every source may use. The emulator brings its own forms of what differs (kernels/gpu/emulator.h).
#pragma once

#ifndef CUDA_EMULATOR
#include <cuda_bf16.h>
#include <cuda_fp16.h>

// Shared memory whose size is said at the launch, as an array `name` of `type`, aligned for vector accesses.
extern __shared__ __align__(16) unsigned char dynamic_shared_bytes[];
#define DYNAMIC_SHARED(type, name) type *name = reinterpret_cast<type *>(dynamic_shared_bytes)
#endif
