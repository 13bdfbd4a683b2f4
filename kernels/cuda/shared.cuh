// Dynamic shared memory, named and typed: DYNAMIC_SHARED(type, name).
#pragma once
#ifndef DYNAMIC_SHARED
#define DYNAMIC_SHARED(type, name)                                                                                    \
    extern __shared__ __align__(16) unsigned char dynamic_shared[];                                                   \
    type *name = reinterpret_cast<type *>(dynamic_shared)
#endif
