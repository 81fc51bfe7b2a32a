/* A CUDA driver for tests that computes nothing: two devices whose memory is the host's, and a list of what is launched.

It has the functions that numba-cuda and cuda-bindings ask for on the way to a launch; all others succeed and do nothing.
cc -O1 -fPIC -shared -Wl,-soname,libcuda.so.1 -o libcuda.so.1 stub_driver.c -lpthread
*/
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define ARGUMENTS 19
#define LAUNCHES 100000
#define LIBRARIES 1000

typedef int Result;
enum { SUCCESS, INVALID_VALUE, INVALID_CONTEXT = 201, INVALID_HANDLE = 400 };

static __thread uintptr_t contexts[64];
static __thread int depth;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uintptr_t libraries;
static char unloaded[LIBRARIES];
static uint64_t launched[LAUNCHES][ARGUMENTS + 4]; /* device, blocks, threads, stream, arguments */
static long launches;
static Result next_launch;

static int device_of(uintptr_t context) { return (int)((context - 0x1000) / 0x100); }

static Result succeed(void) { return SUCCESS; }
static Result get_version(int *version) { *version = 13000; return SUCCESS; }
static Result device_count(int *count) { *count = 2; return SUCCESS; }
static Result device_get(int *device, int number) { *device = number; return SUCCESS; }
static Result device_name(char *name, int length, int device) { strncpy(name, "Stub", length); return SUCCESS; }
static Result device_uuid(char *uuid, int device) { memset(uuid, device + 1, 16); return SUCCESS; }
static Result device_attribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? 9 : attribute == 76 ? 0 : attribute == 1 ? 1024 : attribute == 10 ? 32 : 65536;
    return SUCCESS;
}
static Result primary_context(uintptr_t *context, int device) { *context = 0x1000 + 0x100 * device; return SUCCESS; }
static Result context_current(uintptr_t *context) { *context = depth ? contexts[depth - 1] : 0; return SUCCESS; }
static Result context_set(uintptr_t context) {
    if (!depth && context) depth = 1;
    if (depth && context) contexts[depth - 1] = context;
    if (depth && !context) depth--;
    return SUCCESS;
}
static Result context_push(uintptr_t context) { contexts[depth++] = context; return SUCCESS; }
static Result context_pop(uintptr_t *context) {
    if (!depth) return INVALID_CONTEXT;
    *context = contexts[--depth];
    return SUCCESS;
}
static Result context_device(int *device) {
    if (!depth) return INVALID_CONTEXT;
    *device = device_of(contexts[depth - 1]);
    return SUCCESS;
}
static Result library_load(uintptr_t *library) { *library = __sync_add_and_fetch(&libraries, 1); return SUCCESS; }
static Result library_unload(uintptr_t library) { unloaded[library % LIBRARIES] = 1; return SUCCESS; }
static Result library_kernel(uintptr_t *kernel, uintptr_t library) { *kernel = library; return SUCCESS; }
static Result kernel_attribute(int *value) { *value = 32; return SUCCESS; }
static Result pointer_attribute(int *value, int attribute, uintptr_t address) {
    if (attribute != 9) return INVALID_VALUE; /* what is not pinned */
    *value = 0;
    return SUCCESS;
}
static Result allocate(uintptr_t *address, size_t size) {
    *address = (uintptr_t)aligned_alloc(256, (size + 255) / 256 * 256);
    return SUCCESS;
}
static Result release(uintptr_t address) { free((void *)address); return SUCCESS; }
static Result memory_info(size_t *left, size_t *total) { *left = *total = (size_t)1 << 34; return SUCCESS; }
static Result to_device(uintptr_t target, const void *source, size_t size) {
    memcpy((void *)target, source, size);
    return SUCCESS;
}
static Result to_host(void *target, uintptr_t source, size_t size) {
    memcpy(target, (void *)source, size);
    return SUCCESS;
}
static Result create_event(uintptr_t *event) { *event = 1; return SUCCESS; }
static Result launch(uintptr_t kernel, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned threads_y,
                     unsigned threads_z, unsigned shared, uintptr_t stream, void **arguments) {
    Result result = next_launch;
    next_launch = SUCCESS;
    if (result) return result;
    if (unloaded[kernel % LIBRARIES]) return INVALID_HANDLE;
    if (!depth) return INVALID_CONTEXT;
    if (y != 1 || z != 1 || threads_y != 1 || threads_z != 1 || shared) return INVALID_VALUE;
    pthread_mutex_lock(&lock);
    uint64_t *entry = launched[launches++ % LAUNCHES];
    entry[0] = device_of(contexts[depth - 1]);
    entry[1] = x;
    entry[2] = threads;
    entry[3] = stream;
    for (int i = 0; i < ARGUMENTS; i++) entry[4 + i] = *(uint64_t *)arguments[i];
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

long stub_launches(void) { return launches; }
uint64_t *stub_launched(long number) { return launched[number % LAUNCHES]; }
void stub_fail(Result result) { next_launch = result; }

Result cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *status);

static const struct { const char *name; void *function; } FUNCTIONS[] = {
    {"cuDriverGetVersion", get_version}, {"cuDeviceGetCount", device_count}, {"cuDeviceGet", device_get},
    {"cuDeviceGetName", device_name}, {"cuDeviceGetUuid", device_uuid}, {"cuDeviceGetAttribute", device_attribute},
    {"cuDevicePrimaryCtxRetain", primary_context}, {"cuCtxGetCurrent", context_current},
    {"cuCtxSetCurrent", context_set}, {"cuCtxPushCurrent", context_push}, {"cuCtxPopCurrent", context_pop},
    {"cuCtxGetDevice", context_device}, {"cuLibraryLoadData", library_load}, {"cuLibraryUnload", library_unload},
    {"cuLibraryGetKernel", library_kernel}, {"cuKernelGetFunction", library_kernel},
    {"cuKernelGetAttribute", kernel_attribute}, {"cuFuncGetAttribute", kernel_attribute},
    {"cuPointerGetAttribute", pointer_attribute}, {"cuMemAlloc", allocate}, {"cuMemFree", release},
    {"cuMemGetInfo", memory_info}, {"cuMemcpyHtoDAsync", to_device}, {"cuMemcpyDtoHAsync", to_host},
    {"cuEventCreate", create_event}, {"cuLaunchKernel", launch}, {"cuGetProcAddress", cuGetProcAddress_v2},
};

Result cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *status) {
    if (status) *status = 0;
    *function = succeed;
    for (size_t i = 0; i < sizeof FUNCTIONS / sizeof *FUNCTIONS; i++)
        if (!strcmp(FUNCTIONS[i].name, name)) *function = FUNCTIONS[i].function;
    return SUCCESS;
}
Result cuGetProcAddress(const char *name, void **function, int version, uint64_t flags) {
    return cuGetProcAddress_v2(name, function, version, flags, NULL);
}
Result cuInit(unsigned flags) { return SUCCESS; }
