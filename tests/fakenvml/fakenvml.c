/* A small libnvidia-ml.so.1 for tests: what it answers is read from the file that
 * $FAKE_NVML_SCENARIO names. It keeps the real library's constraints: nothing before nvmlInit,
 * buffer sizes, struct versions, no utilisation and no recovery data on MIG instances.
 *
 * One thing per line, fields separated by '|', '#' begins a comment:
 *
 *   init|code=9                              nvmlInit fails
 *   gpu|uuid=GPU-a|name=NVIDIA A100|total=N|used=N|reserved=N|util=N|mig=1|mig_pending=1
 *      |recovery=1 (-1: the driver doesn't know the field)|remap_pending=1|remap_failed=1|retire_pending=1
 *      |ecc=1 (uncorrectable errors; -1: no ECC, and no events of it)|events=0 (none at all)
 *   mig|gpu=0|uuid=MIG-a|name=...|total=N|used=N
 *   link|gpu=0|to=1|count=2|near=10          2 NVLinks and the NVML_TOPOLOGY level of the pair;
 *                                            to=-1: as many links to switches, count=0: only near
 *   process|gpu=0|pid=N|memory=N             ... or process|mig=0|... (number of the mig line)
 *   event|n=1|gpu=0|type=8|data=79           an XID (8) or double-bit error (2); n grows from event
 *                                            to event. gpu=-1: of a handle that nobody knows
 *   fail|call=nvmlDeviceGetName|gpu=0|code=15     that call fails for that GPU; gpu=-1: all
 *   hang|call=nvmlDeviceGetCount_v2          that call never returns
 *   crash|call=nvmlDeviceGetCount_v2         that call ends the process with SIGSEGV
 *
 * The file is read at each nvmlInit, and for events while somebody waits for them, so a test changes the GPUs of a running service by writing it
 * anew. With -DSCENARIO='"path"' it has a fixed place, for processes that don't get our environment.
 * With -DOLD_DRIVER the functions that drivers before 510 lack are left out.
 * Numbers and structs follow nvml.h; see the binding, nvidia-ml-py.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    OK = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7, TIMEOUT = 10, SYSTEM = 50, VERSION_MISMATCH = 25, UNKNOWN = 999
};
enum { MAX = 64, TEXT = 96, FI_RECOVERY_ACTION = 230, VALUE_UNSIGNED_INT = 1 };

typedef int ret;
typedef unsigned int uint;
typedef unsigned long long u64;

typedef struct device {
    int gpu, is_mig;
    char uuid[TEXT], name[TEXT];
    u64 total, used, reserved;
    int util, mig, mig_pending, recovery, remap_pending, remap_failed, retire_pending;
    int ecc, no_events, registered;
} device;
typedef struct { int on_mig, device; uint pid; u64 memory; } process;
typedef struct { int gpu, to, count, near; } wire;
typedef struct {
    char legacy[16];
    uint domain, bus, device, id, subsystem;
    char bus_id[32];
} pci_info;
typedef struct { char call[TEXT]; int gpu, code; char what; } fault;

typedef struct { uint pid; u64 memory; uint gpu_instance, compute_instance; } process_info;
typedef struct { u64 total, free, used; } memory_v1;
typedef struct { uint version; u64 total, reserved, free, used; } memory_v2;
typedef struct { uint gpu, memory; } utilisation;
typedef struct {
    device *device;
    u64 type, data;
    uint gpu_instance, compute_instance;
} event_data;
typedef struct { int n, gpu; u64 type, data; } event;
typedef struct {
    uint field, scope;
    long long timestamp, latency;
    uint value_type;
    int result;
    union { double d; uint u; u64 ull; } value;
} field_value;

static device gpus[MAX], migs[MAX];
static process processes[MAX];
static fault faults[MAX];
static wire wires[4 * MAX];
static event events[MAX];
static int n_events, last_event, event_sets;
static device stranger;
static int n_gpus, n_migs, n_processes, n_faults, n_wires, init_code, initialised;

/* The value of "key=" in a line, copied to text; "" where it is absent. */
static const char *get(const char *line, const char *key, char *text) {
    size_t length = strlen(key);
    const char *at = line;
    text[0] = 0;
    while ((at = strchr(at, '|')) != NULL) {
        at++;
        if (strncmp(at, key, length) == 0 && at[length] == '=') {
            size_t i = 0;
            for (at += length + 1; *at && *at != '|' && *at != '\n' && i < TEXT - 1; at++)
                text[i++] = *at;
            text[i] = 0;
            break;
        }
    }
    return text;
}

static u64 number(const char *line, const char *key) {
    char text[TEXT];
    return strtoull(get(line, key, text), NULL, 10);
}

static void read_device(const char *line, device *d, int is_mig) {
    memset(d, 0, sizeof *d);
    d->is_mig = is_mig;
    d->gpu = is_mig ? (int)number(line, "gpu") : n_gpus;
    get(line, "uuid", d->uuid);
    get(line, "name", d->name);
    d->total = number(line, "total");
    d->used = number(line, "used");
    d->reserved = number(line, "reserved");
    d->util = (int)number(line, "util");
    d->mig = (int)number(line, "mig");
    d->mig_pending = (int)number(line, "mig_pending");
    d->recovery = (int)number(line, "recovery");
    d->remap_pending = (int)number(line, "remap_pending");
    d->remap_failed = (int)number(line, "remap_failed");
    d->retire_pending = (int)number(line, "retire_pending");
    d->ecc = (int)number(line, "ecc");
    char text[TEXT];
    d->no_events = strcmp(get(line, "events", text), "0") == 0;
}

static void read_line(const char *line) {
    char text[TEXT];
    if (strncmp(line, "event|", 6) == 0) return;
    if (n_gpus >= MAX || n_migs >= MAX || n_processes >= MAX || n_faults >= MAX) abort();
    if (strncmp(line, "init|", 5) == 0) {
        init_code = (int)number(line, "code");
    } else if (strncmp(line, "gpu|", 4) == 0) {
        read_device(line, &gpus[n_gpus], 0);
        n_gpus++;
    } else if (strncmp(line, "mig|", 4) == 0) {
        read_device(line, &migs[n_migs++], 1);
    } else if (strncmp(line, "link|", 5) == 0) {
        if (n_wires >= 4 * MAX) abort();
        wires[n_wires++] = (wire){(int)number(line, "gpu"), (int)number(line, "to"),
                                  (int)number(line, "count"), (int)number(line, "near")};
    } else if (strncmp(line, "process|", 8) == 0) {
        process *p = &processes[n_processes++];
        p->on_mig = *get(line, "mig", text) != 0;
        p->device = (int)number(line, p->on_mig ? "mig" : "gpu");
        p->pid = (uint)number(line, "pid");
        p->memory = *get(line, "memory", text) ? number(line, "memory") : (u64)-1;
    } else if (*line == 'f' || *line == 'h' || *line == 'c') {
        fault *f = &faults[n_faults++];
        f->what = *line;
        get(line, "call", f->call);
        f->gpu = *get(line, "gpu", text) ? atoi(text) : -1;
        f->code = (int)number(line, "code");
    } else if (*line != '#' && *line != '\n') {
        fprintf(stderr, "fakenvml: what is this? %s", line);
        abort();
    }
}

static FILE *open_scenario(void) {
    const char *path = getenv("FAKE_NVML_SCENARIO");
#ifdef SCENARIO
    if (path == NULL) path = SCENARIO;
#endif
    FILE *file = path ? fopen(path, "r") : NULL;
    if (file == NULL) {
        fprintf(stderr, "fakenvml: FAKE_NVML_SCENARIO names no readable file\n");
        abort();
    }
    return file;
}

/* The events alone: handles of those who wait stay as they are. */
static void read_events(void) {
    char line[1024];
    FILE *file = open_scenario();
    n_events = 0;
    while (fgets(line, sizeof line, file)) {
        char text[TEXT];
        if (strncmp(line, "event|", 6) != 0) continue;
        if (n_events >= MAX) abort();
        events[n_events++] = (event){(int)number(line, "n"), atoi(get(line, "gpu", text)),
                                     number(line, "type"), number(line, "data")};
    }
    fclose(file);
}

static void read_scenario(void) {
    char line[1024];
    FILE *file = open_scenario();
    n_gpus = n_migs = n_processes = n_faults = n_wires = init_code = 0;
    while (fgets(line, sizeof line, file)) read_line(line);
    fclose(file);
}

/* What every call does first: state, handle, faults. */
static ret enter(const char *call, const device *d) {
    if (!initialised) return UNINITIALIZED;
    for (int i = 0; i < n_faults; i++) {
        const fault *f = &faults[i];
        if (strcmp(f->call, call) != 0) continue;
        if (f->gpu >= 0 && (d == NULL || d->gpu != f->gpu)) continue;
        if (f->what == 'h') for (;;) pause();
        if (f->what == 'c') raise(SIGSEGV);
        return f->code;
    }
    return OK;
}

static ret enter_device(const char *call, const device *d) {
    int known = (d >= gpus && d < gpus + n_gpus) || (d >= migs && d < migs + n_migs);
    if (!initialised) return UNINITIALIZED;
    return known ? enter(call, d) : INVALID_ARGUMENT;
}

#define ENTER() do { ret r_ = enter(__func__, NULL); if (r_ != OK) return r_; } while (0)
#define ENTER_DEVICE(d) \
    do { ret r_ = enter_device(__func__, (d)); if (r_ != OK) return r_; } while (0)

static ret copy(const char *from, char *to, uint size) {
    if (to == NULL) return INVALID_ARGUMENT;
    if (strlen(from) + 1 > size) return INSUFFICIENT_SIZE;
    strcpy(to, from);
    return OK;
}

ret nvmlInitWithFlags(uint flags) {
    (void)flags;
    if (initialised == 0) read_scenario();
    if (init_code != OK) return init_code;
    initialised++;
    return enter(__func__, NULL);
}

ret nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

ret nvmlShutdown(void) {
    ENTER();
    initialised--;
    return OK;
}

const char *nvmlErrorString(ret code) { return code == OK ? "The operation was successful" : "Fake"; }

ret nvmlSystemGetDriverVersion(char *version, uint size) {
    ENTER();
    return copy("570.00.fake", version, size);
}

ret nvmlDeviceGetCount_v2(uint *count) {
    ENTER();
    *count = (uint)n_gpus;
    return OK;
}

ret nvmlDeviceGetHandleByIndex_v2(uint index, device **handle) {
    if (!initialised) return UNINITIALIZED;
    if (index >= (uint)n_gpus) return INVALID_ARGUMENT;
    ENTER_DEVICE(&gpus[index]);
    *handle = &gpus[index];
    return OK;
}

ret nvmlDeviceGetUUID(device *d, char *uuid, uint size) {
    ENTER_DEVICE(d);
    return copy(d->uuid, uuid, size);
}

ret nvmlDeviceGetName(device *d, char *name, uint size) {
    ENTER_DEVICE(d);
    return copy(d->name, name, size);
}

ret nvmlDeviceGetMemoryInfo(device *d, memory_v1 *memory) {
    ENTER_DEVICE(d);
    /* this version counts what the driver reserves as used */
    memory->total = d->total;
    memory->used = d->used + d->reserved;
    memory->free = d->total - memory->used;
    return OK;
}

ret nvmlDeviceGetCudaComputeCapability(device *d, int *major, int *minor) {
    ENTER_DEVICE(d);
    *major = 8;
    *minor = 0;
    return OK;
}

ret nvmlDeviceGetMigMode(device *d, uint *current, uint *pending) {
    ENTER_DEVICE(d);
    if (d->is_mig || strstr(d->name, "A100") == NULL) return NOT_SUPPORTED;
    *current = (uint)d->mig;
    *pending = (uint)(d->mig_pending ? !d->mig : d->mig);
    return OK;
}

ret nvmlDeviceGetMaxMigDeviceCount(device *d, uint *count) {
    ENTER_DEVICE(d);
    *count = d->mig ? 7 : 0;
    return OK;
}

ret nvmlDeviceGetMigDeviceHandleByIndex(device *d, uint index, device **handle) {
    ENTER_DEVICE(d);
    if (!d->mig) return NOT_SUPPORTED;
    if (index >= 7) return INVALID_ARGUMENT;
    for (int i = 0; i < n_migs; i++)
        if (migs[i].gpu == d->gpu && index-- == 0) {
            *handle = &migs[i];
            return OK;
        }
    return NOT_FOUND;
}

ret nvmlDeviceGetUtilizationRates(device *d, utilisation *rates) {
    ENTER_DEVICE(d);
    if (d->is_mig || d->mig) return NOT_SUPPORTED;
    rates->gpu = (uint)d->util;
    rates->memory = 0;
    return OK;
}

static ret list_processes(device *d, uint *count, process_info *infos) {
    uint room = *count, n = 0;
    int place = (int)(d - (d->is_mig ? migs : gpus));
    for (int i = 0; i < n_processes; i++) {
        const process *p = &processes[i];
        if (p->on_mig != d->is_mig || p->device != place) continue;
        if (n < room) infos[n] = (process_info){p->pid, p->memory, (uint)-1, (uint)-1};
        n++;
    }
    *count = n;
    return n > room ? INSUFFICIENT_SIZE : OK;
}

ret nvmlDeviceGetComputeRunningProcesses_v2(device *d, uint *count, process_info *infos) {
    ENTER_DEVICE(d);
    return list_processes(d, count, infos);
}

ret nvmlDeviceGetRetiredPagesPendingStatus(device *d, uint *pending) {
    ENTER_DEVICE(d);
    /* GPUs that remap rows have no retired pages */
    if (d->is_mig || strstr(d->name, "A100") != NULL) return NOT_SUPPORTED;
    *pending = (uint)d->retire_pending;
    return OK;
}

ret nvmlDeviceGetRemappedRows(device *d, uint *corrected, uint *uncorrected, uint *pending,
                              uint *failed) {
    ENTER_DEVICE(d);
    if (d->is_mig || strstr(d->name, "A100") == NULL) return NOT_SUPPORTED;
    *corrected = *uncorrected = 0;
    *pending = (uint)d->remap_pending;
    *failed = (uint)d->remap_failed;
    return OK;
}

static void pci(pci_info *info, uint bus) {
    memset(info, 0, sizeof *info);
    info->bus = bus;
    snprintf(info->bus_id, sizeof info->bus_id, "00000000:%02X:00.0", bus);
}

ret nvmlDeviceGetPciInfo_v3(device *d, pci_info *info) {
    ENTER_DEVICE(d);
    pci(info, 1 + (uint)(d - gpus));
    return OK;
}

ret nvmlDeviceGetTopologyCommonAncestor(device *a, device *b, int *level) {
    ENTER_DEVICE(a);
    ENTER_DEVICE(b);
    *level = SYSTEM;
    for (int i = 0; i < n_wires; i++) {
        const wire *w = &wires[i];
        if ((w->gpu == a->gpu && w->to == b->gpu) || (w->gpu == b->gpu && w->to == a->gpu))
            *level = w->near;
    }
    return OK;
}

/* The other end of a GPU's link: -1 a switch, -2 there is no such link. */
static int other_end(const device *d, uint link) {
    int n = (int)link;
    for (int i = 0; i < n_wires; i++) {
        const wire *w = &wires[i];
        if (w->gpu != d->gpu && w->to != d->gpu) continue;
        if (n < w->count) return w->gpu == d->gpu ? w->to : w->gpu;
        n -= w->count;
    }
    return -2;
}

ret nvmlDeviceGetNvLinkState(device *d, uint link, uint *active) {
    ENTER_DEVICE(d);
    if (other_end(d, link) == -2) return INVALID_ARGUMENT;
    *active = 1;
    return OK;
}

ret nvmlDeviceGetNvLinkRemoteDeviceType(device *d, uint link, uint *kind) {
    ENTER_DEVICE(d);
    *kind = other_end(d, link) == -1 ? 2 : 0;
    return OK;
}

ret nvmlDeviceGetNvLinkRemotePciInfo_v2(device *d, uint link, pci_info *info) {
    ENTER_DEVICE(d);
    pci(info, 1 + (uint)other_end(d, link));
    return OK;
}

ret nvmlDeviceGetTotalEccErrors(device *d, int kind, int counter, u64 *count) {
    ENTER_DEVICE(d);
    if (kind < 0 || kind > 1 || counter < 0 || counter > 1) return INVALID_ARGUMENT;
    if (d->is_mig || d->ecc < 0) return NOT_SUPPORTED;
    /* volatile (0) and uncorrected (1): what has happened since the last reset */
    *count = kind == 1 && counter == 0 ? (u64)d->ecc : 0;
    return OK;
}

ret nvmlEventSetCreate(void **set) {
    ENTER();
    event_sets++;
    *set = &events;
    return OK;
}

ret nvmlEventSetFree(void *set) {
    ENTER();
    if (set != &events || event_sets == 0) return INVALID_ARGUMENT;
    event_sets--;
    return OK;
}

ret nvmlDeviceGetSupportedEventTypes(device *d, u64 *types) {
    ENTER_DEVICE(d);
    if (d->is_mig || d->no_events) return NOT_SUPPORTED;
    *types = (d->ecc < 0 ? 0 : 1 | 2) | 8;
    return OK;
}

ret nvmlDeviceRegisterEvents(device *d, u64 types, void *set) {
    ENTER_DEVICE(d);
    u64 known;
    ret answer = nvmlDeviceGetSupportedEventTypes(d, &known);
    if (set != &events || event_sets == 0) return INVALID_ARGUMENT;
    if (answer != OK || (types & ~known) != 0) return NOT_SUPPORTED;
    d->registered |= (int)types;
    /* what happened before is not told any more */
    read_events();
    for (int i = 0; i < n_events; i++)
        if (events[i].n > last_event) last_event = events[i].n;
    return OK;
}

ret nvmlEventSetWait_v2(void *set, event_data *data, uint timeout) {
    ENTER();
    if (set != &events || event_sets == 0) return INVALID_ARGUMENT;
    for (uint waited = 0;; waited += 20) {
        ret answer = enter(__func__, NULL);
        if (answer != OK) return answer;
        read_events();
        for (int i = 0; i < n_events; i++) {
            const event *e = &events[i];
            if (e->n <= last_event) continue;
            last_event = e->n;
            device *d = e->gpu >= 0 && e->gpu < n_gpus ? &gpus[e->gpu] : &stranger;
            if (d != &stranger && (d->registered & (int)e->type) == 0) continue;
            *data = (event_data){d, e->type, e->data, (uint)-1, (uint)-1};
            return OK;
        }
        if (waited >= timeout) return TIMEOUT;
        struct timespec pause_for = {0, 20 * 1000 * 1000};
        nanosleep(&pause_for, NULL);
    }
}

#ifndef OLD_DRIVER
ret nvmlDeviceGetMemoryInfo_v2(device *d, memory_v2 *memory) {
    ENTER_DEVICE(d);
    if (memory->version != (2u << 24 | sizeof *memory)) return VERSION_MISMATCH;
    memory->total = d->total;
    memory->reserved = d->reserved;
    memory->used = d->used;
    memory->free = d->total - d->used - d->reserved;
    return OK;
}

ret nvmlDeviceGetComputeRunningProcesses_v3(device *d, uint *count, process_info *infos) {
    ENTER_DEVICE(d);
    return list_processes(d, count, infos);
}

ret nvmlDeviceGetFieldValues(device *d, int count, field_value *values) {
    ENTER_DEVICE(d);
    if (count < 1 || values == NULL) return INVALID_ARGUMENT;
    for (int i = 0; i < count; i++) {
        values[i].result = NOT_SUPPORTED;
        if (values[i].field != FI_RECOVERY_ACTION || d->is_mig) continue;
        if (d->recovery < 0) {
            values[i].result = INVALID_ARGUMENT;
            continue;
        }
        values[i].result = OK;
        values[i].value_type = VALUE_UNSIGNED_INT;
        values[i].value.u = (uint)d->recovery;
    }
    return OK;
}
#endif
