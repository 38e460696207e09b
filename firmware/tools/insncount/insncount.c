/* QEMU plugin (API version 1, QEMU 4.2 to 8.2) that counts the guest's instructions between two markers.
 *
 * Build:  gcc -O2 -fPIC -shared -o libinsncount.so insncount.c
 * Use:    qemu-system-arm ... -plugin ./libinsncount.so,out=counts.txt
 *
 * The Thumb hints #8 (0xbf80) and #9 (0xbf90), which do nothing on any Cortex-M, begin and end a region; in code for
 * aarch64 the hints #80 (0xd5032a1f) and #96 (0xd5032c1f), which do nothing there. Each end writes one line,
 * "instructions=N taken=M": all instructions executed, markers excluded, and how often execution went on anywhere else
 * than at the next address. Without an end marker nothing is written.
 *
 * The declarations are the part of the plugin interface used here, so that no QEMU headers are needed.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef struct {
    const char *target_name;
    struct { int min, cur; } version;
    bool system_emulation;
} qemu_info_t;
enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };
typedef void (*translated_cb)(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void (*executed_cb)(unsigned int cpu, void *data);
typedef void (*exit_cb)(qemu_plugin_id_t, void *);

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, translated_cb);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, executed_cb, enum qemu_plugin_cb_flags, void *);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, executed_cb, enum qemu_plugin_cb_flags, void *);
void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *, enum qemu_plugin_op, void *, uint64_t);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, exit_cb, void *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);

int qemu_plugin_version = 1;

struct block {
    uint64_t start, end;
};

static uint64_t instructions, taken;             /* since the start of the emulation */
static uint64_t instructions_at, taken_at;       /* at the last begin marker */
static uint64_t expected;                        /* where execution goes on if no branch is taken */
static FILE *out;

static void begin(unsigned int cpu, void *data)
{
    (void)cpu, (void)data;
    instructions_at = instructions;
    taken_at = taken;
}

static void end(unsigned int cpu, void *data)
{
    (void)cpu, (void)data;
    fprintf(out, "instructions=%" PRIu64 " taken=%" PRIu64 "\n", instructions - instructions_at, taken - taken_at);
    fflush(out);
}

static void block_executed(unsigned int cpu, void *data)
{
    const struct block *block = data;
    (void)cpu;
    taken += expected != block->start;
    expected = block->end;
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    struct block *block = malloc(sizeof *block); /* lives as long as the translation: for good */
    (void)id;
    if (!block)
        abort();
    block->start = block->end = qemu_plugin_tb_vaddr(tb);
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        const uint8_t *bytes = qemu_plugin_insn_data(insn);
        size_t size = qemu_plugin_insn_size(insn);
        uint32_t code = bytes[0] | bytes[1] << 8;
        if (size == 4)
            code |= bytes[2] << 16 | (uint32_t)bytes[3] << 24;
        block->end = qemu_plugin_insn_vaddr(insn) + size;
        if (code == 0xbf80 || code == 0xd5032a1f)
            qemu_plugin_register_vcpu_insn_exec_cb(insn, begin, QEMU_PLUGIN_CB_NO_REGS, NULL);
        else if (code == 0xbf90 || code == 0xd5032c1f)
            qemu_plugin_register_vcpu_insn_exec_cb(insn, end, QEMU_PLUGIN_CB_NO_REGS, NULL);
        else
            qemu_plugin_register_vcpu_insn_exec_inline(insn, QEMU_PLUGIN_INLINE_ADD_U64, &instructions, 1);
    }
    qemu_plugin_register_vcpu_tb_exec_cb(tb, block_executed, QEMU_PLUGIN_CB_NO_REGS, block);
}

static void at_exit(qemu_plugin_id_t id, void *data)
{
    (void)id, (void)data;
    fclose(out);
}

int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
    (void)info;
    out = stderr;
    for (int i = 0; i < argc; i++) {
        if (strncmp(argv[i], "out=", 4) == 0 && !(out = fopen(argv[i] + 4, "w"))) {
            fprintf(stderr, "insncount: cannot write %s\n", argv[i] + 4);
            return -1;
        }
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, at_exit, NULL);
    return 0;
}
