/* An NVIDIA driver that has two devices and runs nothing: their memory is the host's, and what it is asked is kept.
 *
 * As by a true driver, refused is whatever needs a current context and has none, an address or a handle that is not one
 * (any more), memory of another device than the context's, and a launch that the kernel was not compiled for.
 *
 * With TELL in the environment, it says on stderr what it is asked; with REFUSE_PTX, it refuses PTX, as one that is
 * older than that. The functions at the end are for the process itself: launches with all that they were given, PTX,
 * and errors to order.
 *
 * cc -O1 -fPIC -shared -Wl,-soname,libcuda.so.1 -o libcuda.so.1 driver.c -ldl -lpthread */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SUCCESS, INVALID_VALUE, OUT_OF_MEMORY, INVALID_CONTEXT = 201, UNSUPPORTED_PTX_VERSION = 222, INVALID_HANDLE = 400,
    NOT_SUPPORTED = 801
};
enum { DEVICES = 2, DEPTH = 64, BLOCKS = 1 << 14, PARAMETERS = 32, LAUNCHES = 1 << 14 };

#define SAY(...) (telling ? (void)fprintf(stderr, "driver: " __VA_ARGS__) : (void)0)
#define IN_A_CONTEXT                                 \
    if (depth == 0) {                                \
        SAY("%s without a context\n", __func__);     \
        return INVALID_CONTEXT;                      \
    }

static int telling;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void begin(void) { telling = getenv("TELL") != NULL; }

/* ---------------------------------------------------------------------------------------------- devices */

int cuInit(unsigned flags) { return SUCCESS; }
int cuDriverGetVersion(int *version) { return *version = 13000, SUCCESS; }
int cuDeviceGetCount(int *count) { return *count = DEVICES, SUCCESS; }
int cuDeviceGet(int *device, int ordinal) { return *device = ordinal, ordinal < DEVICES ? SUCCESS : INVALID_VALUE; }
int cuDeviceGetName(char *name, int length, int device) { return snprintf(name, length, "A GPU of tests"), SUCCESS; }
int cuDeviceGetUuid(void *uuid, int device) { return memset(uuid, device + 1, 16), SUCCESS; }
int cuDeviceTotalMem(size_t *bytes, int device) { return *bytes = 1ull << 36, SUCCESS; }

int cuDeviceGetAttribute(int *value, int attribute, int device) {
    enum { THREADS = 1, WARP = 10, MULTIPROCESSORS = 16, MAJOR = 75, MINOR = 76, PAGEABLE_MEMORY_ACCESS = 88 };
    switch (attribute) {
    case THREADS: *value = 1024; break;
    case WARP: *value = 32; break;
    case MULTIPROCESSORS: *value = 132; break;
    case MAJOR: *value = 9; break;
    case MINOR: case PAGEABLE_MEMORY_ACCESS: *value = 0; break;
    default: *value = 1;
    }
    return SUCCESS;
}

/* ---------------------------------------------------------------------------------------------- contexts */

static char primary[DEVICES]; /* whose addresses stand for the devices' contexts */
static __thread char *contexts[DEPTH];
static __thread int depth;

static int current(void) { return (int)(contexts[depth - 1] - primary); }

int cuDevicePrimaryCtxRetain(char **context, int device) { return *context = primary + device, SUCCESS; }
int cuCtxGetCurrent(char **context) { return *context = depth ? contexts[depth - 1] : NULL, SUCCESS; }

int cuCtxPushCurrent(char *context) {
    if (context < primary || context >= primary + DEVICES || depth == DEPTH) return INVALID_CONTEXT;
    contexts[depth++] = context;
    return SUCCESS;
}

int cuCtxSetCurrent(char *context) {
    if (depth) depth--;
    return context ? cuCtxPushCurrent(context) : SUCCESS;
}

int cuCtxPopCurrent(char **context) {
    IN_A_CONTEXT
    depth--;
    if (context) *context = contexts[depth];
    return SUCCESS;
}

int cuCtxGetDevice(int *device) { return depth ? (*device = current(), SUCCESS) : INVALID_CONTEXT; }
int cuCtxSynchronize(void) { IN_A_CONTEXT return SUCCESS; }

/* ---------------------------------------------------------------------------------------------- memory */

static struct block { char *address; size_t bytes; int device; } blocks[BLOCKS];
static int used;

/* The number of the block that an address is in, -1 if there is none; with the lock. */
static int block_of(const char *address) {
    int i = used;
    while (--i >= 0 && !(blocks[i].address <= address && address < blocks[i].address + blocks[i].bytes));
    return i;
}

/* The device that an address belongs to, -1 if there is none. */
static int device_of(const void *address) {
    pthread_mutex_lock(&lock);
    int i = block_of(address), device = i < 0 ? -1 : blocks[i].device;
    pthread_mutex_unlock(&lock);
    return device;
}

int cuMemGetInfo(size_t *free, size_t *total) { IN_A_CONTEXT return *free = *total = 1ull << 36, SUCCESS; }

int cuMemAlloc(char **address, size_t bytes) {
    IN_A_CONTEXT
    if (used == BLOCKS || bytes == 0 || posix_memalign((void **)address, 512, bytes)) return OUT_OF_MEMORY;
    memset(*address, 0xA5, bytes);
    pthread_mutex_lock(&lock);
    blocks[used++] = (struct block){*address, bytes, current()};
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

/* Whose it is tells the address: numba frees without a context as it closes all; npselect should not. */
int cuMemFree(char *address) {
    if (depth == 0) SAY("%s without a context\n", __func__);
    pthread_mutex_lock(&lock);
    int i = block_of(address), known = i >= 0 && blocks[i].address == address;
    if (known) blocks[i] = blocks[--used];
    pthread_mutex_unlock(&lock);
    if (!known) return INVALID_VALUE;
    SAY("free\n");
    free(address);
    return SUCCESS;
}

/* With a context goes its memory. */
static int close_context(int device) {
    pthread_mutex_lock(&lock);
    for (int i = used; i-- > 0;)
        if (blocks[i].device == device) free(blocks[i].address), blocks[i] = blocks[--used];
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

int cuDevicePrimaryCtxRelease(int device) { return close_context(device); }
int cuDevicePrimaryCtxReset(int device) { return close_context(device); }

int cuPointerGetAttribute(void *value, int attribute, void *address) {
    enum { MEMORY_TYPE = 2, DEVICE_ORDINAL = 9, OF_A_DEVICE = 2 };
    int device = device_of(address);
    if (device < 0 || (attribute != MEMORY_TYPE && attribute != DEVICE_ORDINAL)) return INVALID_VALUE;
    *(int *)value = attribute == MEMORY_TYPE ? OF_A_DEVICE : device;
    return SUCCESS;
}

static int copy(void *to, const void *from, size_t bytes, const void *of_the_device) {
    if (device_of(of_the_device) != current()) return INVALID_VALUE;
    memcpy(to, from, bytes);
    return SUCCESS;
}

int cuMemcpyHtoD(void *to, const void *from, size_t bytes) { IN_A_CONTEXT return copy(to, from, bytes, to); }
int cuMemcpyDtoH(void *to, const void *from, size_t bytes) { IN_A_CONTEXT return copy(to, from, bytes, from); }

int cuMemcpyHtoDAsync(void *to, const void *from, size_t bytes, void *stream) {
    IN_A_CONTEXT
    SAY("to the device, %zu bytes, stream %zu\n", bytes, (size_t)stream);
    return copy(to, from, bytes, to);
}

int cuMemcpyDtoHAsync(void *to, const void *from, size_t bytes, void *stream) {
    IN_A_CONTEXT
    SAY("to the host, %zu bytes, stream %zu\n", bytes, (size_t)stream);
    return copy(to, from, bytes, from);
}

/* ---------------------------------------------------------------------------------------------- streams, events */

int cuStreamSynchronize(void *stream) {
    IN_A_CONTEXT
    SAY("synchronize, stream %zu\n", (size_t)stream);
    return SUCCESS;
}

int cuStreamWaitEvent(void *stream, void *event, unsigned flags) {
    IN_A_CONTEXT
    SAY("wait, stream %zu\n", (size_t)stream);
    return SUCCESS;
}

int cuEventRecord(void *event, void *stream) {
    IN_A_CONTEXT
    SAY("record, stream %zu\n", (size_t)stream);
    return SUCCESS;
}

int cuEventCreate(void **event, unsigned flags) { IN_A_CONTEXT return *event = malloc(8), SUCCESS; }
int cuEventDestroy(void *event) { return free(event), SUCCESS; }

/* ---------------------------------------------------------------------------------------------- kernels */

/* A library of one kernel, which is its own handle; `threads` of a block at most, `parameters` of 8 bytes each. */
struct library { int is_loaded, parameters; unsigned threads; };

static const char *last_ptx = "";

static struct library read_ptx(const char *ptx) {
    const char *entry = strstr(ptx, ".entry"), *body = strchr(entry, '{'), *end = strchr(entry, ')');
    struct library found = {1, 0, 1024};
    for (const char *at = entry; (at = strstr(at, ".param")) && at < end; at++) found.parameters++;
    const char *bound = strstr(entry, ".maxntid");
    if (bound && bound < body) found.threads = strtoul(bound + strlen(".maxntid"), NULL, 10);
    return found;
}

int cuLibraryLoadData(struct library **library, const char *code, void *a, void *b, unsigned c, void *d, void *e,
                      unsigned f) {
    static __thread struct library described; /* by PTX: machine code is what was made of that */
    int is_elf = memcmp(code, "\177ELF", 4) == 0;
    SAY("load %s\n", is_elf ? "machine code" : "PTX");
    if (!is_elf) described = read_ptx(last_ptx = strdup(code));
    if (!is_elf && getenv("REFUSE_PTX")) return UNSUPPORTED_PTX_VERSION;
    *library = malloc(sizeof **library);
    **library = described;
    return SUCCESS;
}

int cuLibraryUnload(struct library *library) { return library->is_loaded = 0, SUCCESS; }
int cuLibraryGetKernel(void **kernel, void *library, const char *name) { return *kernel = library, SUCCESS; }
int cuKernelGetFunction(void **function, void *kernel) { IN_A_CONTEXT return *function = kernel, SUCCESS; }
int cuKernelGetAttribute(int *value, int attribute, void *kernel, int device) { return *value = 32, SUCCESS; }
int cuFuncGetAttribute(int *value, int attribute, void *function) { return *value = 32, SUCCESS; }

static struct launch { uint64_t device, blocks, threads, stream, parameters, arguments[PARAMETERS]; } launches[LAUNCHES];
static long launched;
static int ordered; /* the error of the next launch */

int cuLaunchKernel(const struct library *kernel, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned ty,
                   unsigned tz, unsigned shared, void *stream, void **arguments, void **extra) {
    IN_A_CONTEXT
    int error = ordered;
    ordered = SUCCESS;
    if (error) return error;
    if (!kernel->is_loaded) return INVALID_HANDLE;
    if (x == 0 || y != 1 || z != 1 || threads == 0 || threads > kernel->threads || ty != 1 || tz != 1 || shared)
        return INVALID_VALUE;

    struct launch now = {current(), x, threads, (uintptr_t)stream, kernel->parameters};
    int arrays = 0;
    for (int i = 0; i < kernel->parameters; i++) {
        now.arguments[i] = *(uint64_t *)arguments[i];
        int device = device_of((void *)now.arguments[i]);
        if (device >= 0 && device != current()) return INVALID_VALUE;
        arrays += device >= 0;
    }
    SAY("launch, stream %zu, %d arrays\n", (size_t)stream, arrays);
    pthread_mutex_lock(&lock);
    launches[launched++ % LAUNCHES] = now;
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

struct configuration { unsigned x, y, z, threads, ty, tz, shared; void *stream; };

int cuLaunchKernelEx(const struct configuration *how, void *kernel, void **arguments, void **extra) {
    return cuLaunchKernel(kernel, how->x, how->y, how->z, how->threads, how->ty, how->tz, how->shared, how->stream,
                          arguments, extra);
}

/* ---------------------------------------------------------------------------------------------- errors, symbols */

int cuGetErrorString(int error, const char **text) { return *text = "an error of tests", SUCCESS; }
int cuGetErrorName(int error, const char **text) { return *text = "CUDA_ERROR_OF_TESTS", SUCCESS; }

static int missing(void) { return NOT_SUPPORTED; }

int cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *status) {
    Dl_info self;
    dladdr((void *)cuInit, &self);
    *function = dlsym(dlopen(self.dli_fname, RTLD_NOW | RTLD_NOLOAD), name);
    if (strcmp(name, "cuGetProcAddress") == 0) *function = (void *)cuGetProcAddress_v2;
    if (*function == NULL) *function = (void *)missing;
    if (status) *status = 0;
    return SUCCESS;
}

/* ---------------------------------------------------------------------------------------------- for the process */

long driver_launches(void) { return launched; }
const struct launch *driver_launch(long number) { return &launches[number % LAUNCHES]; }
const char *driver_ptx(void) { return last_ptx; } /* what was loaded last, or refused */
void driver_fails(int error) { ordered = error; }
