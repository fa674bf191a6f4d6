// The autograd engine asks one question of the CUDA driver: whether a device has a primary context. Without a driver
// it must be told no, so that tensors that are not there can be differentiated.
#include <ATen/detail/CUDAHooksInterface.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>

static bool none(const void*, c10::DeviceIndex) { return false; }

extern "C" int structlin_no_context() {
  const at::CUDAHooksInterface& hooks = at::detail::getCUDAHooks();
  auto member = &at::CUDAHooksInterface::hasPrimaryContext;
  ptrdiff_t offset;
  memcpy(&offset, &member, sizeof offset);  // of a virtual member: its place in the table, and one
  char* slot = *(char**)&hooks + offset - 1;
  long size = sysconf(_SC_PAGESIZE);
  char* page = (char*)((uintptr_t)slot & ~(uintptr_t)(size - 1));
  if (mprotect(page, 2 * size, PROT_READ | PROT_WRITE)) return 1;
  *(void**)slot = (void*)&none;
  return 0;
}
