/* Many values in one call: read from files, opened with AES-256-GCM, scored. Who calls holds no lock of the interpreter.
 *
 * The cipher is OpenSSL's (EVP); nothing is computed with keys here. Sizes are checked by the Python side (_calls.py),
 * which is the only one that calls. Sources: NIST SP 800-38D (GCM), IEEE 754-2008 (binary16).
 */
#define _GNU_SOURCE /* preadv2 */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "bulk.h"
#include "processor.h"

enum { KEY_BYTES = 32, NONCE_BYTES = 12, TAG_BYTES = 16, NUMBER_BYTES = 8, ADDITIONAL_MAX = 256 };

static EVP_CIPHER *gcm; /* fetched once: a fetch for each value would take longer than opening it */

/* Once, before anything else. 0: this OpenSSL has no AES-256-GCM to give. */
int32_t se_ready(void)
{
    if (gcm == NULL)
        gcm = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    return gcm != NULL;
}

const char *se_library(void)
{
    return OpenSSL_version(OPENSSL_VERSION);
}

enum { READ_TOGETHER = 512 };

typedef struct {
    const int32_t *files;
    const int64_t *offsets;
    size_t slot_bytes;
    uint8_t *out;
} slots;

/* How many slots from `first` on follow each other in one file: they are one read. */
static size_t following(const slots *some, size_t first, size_t end)
{
    size_t next = first + 1;

    while (next < end && some->files[next] == some->files[first]
           && some->offsets[next] == some->offsets[first] + (int64_t)((next - first) * some->slot_bytes))
        next++;
    return next - first;
}

/* What is in memory already; below 0, or less than was asked for, where that is not all. */
static ssize_t read_now(int file, void *out, size_t bytes, int64_t offset)
{
#ifdef RWF_NOWAIT
    struct iovec into = {out, bytes};

    return offset < 0 ? -1 : preadv2(file, &into, 1, (off_t)offset, RWF_NOWAIT); /* it takes -1 for the file's own place */
#else
    (void)file, (void)out, (void)bytes, (void)offset;
    return -1;
#endif
}

/* The slots from `first` to `end`, READ_TOGETHER at most. Those that have to come from the medium are asked for all
 * together before the first is waited for. Gives the first that is not whole, or `end`. */
static size_t read_some(const slots *some, size_t first, size_t end)
{
    uint8_t missed[READ_TOGETHER];
    size_t run, waiting = 0;

    for (size_t at = first; at < end; at += run) {
        size_t bytes = (run = following(some, at, end)) * some->slot_bytes;

        missed[at - first] = read_now(some->files[at], some->out + at * some->slot_bytes, bytes, some->offsets[at])
            != (ssize_t)bytes;
        waiting += missed[at - first];
    }
    if (waiting > 1)
        for (size_t at = first; at < end; at += run) {
            run = following(some, at, end);
            if (missed[at - first])
                posix_fadvise(some->files[at], (off_t)some->offsets[at], (off_t)(run * some->slot_bytes),
                              POSIX_FADV_WILLNEED);
        }
    if (waiting > 0)
        for (size_t at = first; at < end; at += run) {
            size_t bytes = (run = following(some, at, end)) * some->slot_bytes;
            ssize_t got;

            if (!missed[at - first])
                continue;
            do
                got = pread(some->files[at], some->out + at * some->slot_bytes, bytes, (off_t)some->offsets[at]);
            while (got < 0 && errno == EINTR);
            if (got < 0)
                return at;
            if ((size_t)got < bytes)
                return at + (size_t)got / some->slot_bytes;
        }
    return end;
}

/* Slots of one size, one behind another into `out`. How many, from the first, are whole. */
size_t se_read_slots(size_t count, const int32_t *files, const int64_t *offsets, size_t slot_bytes, uint8_t *out)
{
    const slots some = {files, offsets, slot_bytes, out};
    size_t first = 0;

    while (first < count) {
        size_t end = count - first > READ_TOGETHER ? first + READ_TOGETHER : count;
        size_t whole = read_some(&some, first, end);

        if (whole < end)
            return whole;
        first = end;
    }
    return count;
}

static int open_one(EVP_CIPHER_CTX *context, const uint8_t *key, const uint8_t *nonce, const uint8_t *additional,
                    size_t additional_bytes, size_t value_bytes, uint8_t *out)
{
    const uint8_t *sealed = nonce + NONCE_BYTES;
    uint8_t tag[TAG_BYTES];
    int length = 0, whole = 0;

    memcpy(tag, sealed + value_bytes, TAG_BYTES);
    return EVP_DecryptInit_ex2(context, NULL, key, nonce, NULL) > 0
        && EVP_DecryptUpdate(context, NULL, &length, additional, (int)additional_bytes) > 0
        && EVP_DecryptUpdate(context, out, &whole, sealed, (int)value_bytes) > 0
        && (size_t)whole == value_bytes
        && EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, TAG_BYTES, tag) > 0
        && EVP_DecryptFinal_ex(context, out + value_bytes, &length) > 0;
}

/* Sealed values and plaintexts are rows of two tables, `table_rows` long; `rows` says which. The n-th has the n-th key, and
 * the n-th number, big end first, in its additional data; each begins with the header. The plaintext of one that did not
 * open is zeros. Below 0: a row lies outside, and nothing was touched. */
int32_t se_open_values(size_t count, const int64_t *rows, size_t table_rows, const uint8_t *keys, const int64_t *numbers,
                       const uint8_t *additional, size_t additional_bytes, size_t number_at,
                       const uint8_t *sealed, const uint8_t *header, size_t header_bytes, size_t value_bytes,
                       uint8_t *out, uint8_t *opened)
{
    const size_t sealed_bytes = header_bytes + NONCE_BYTES + value_bytes + TAG_BYTES;
    uint8_t place[ADDITIONAL_MAX];
    EVP_CIPHER_CTX *context;

    for (size_t n = 0; n < count; n++)
        if ((uint64_t)rows[n] >= table_rows)
            return -1;
    memset(opened, 0, count);
    if (gcm == NULL || additional_bytes > ADDITIONAL_MAX || number_at + NUMBER_BYTES > additional_bytes)
        return 0;
    context = EVP_CIPHER_CTX_new();
    if (context == NULL)
        return 0;
    memcpy(place, additional, additional_bytes);
    if (EVP_DecryptInit_ex2(context, gcm, NULL, NULL, NULL) > 0) {
        for (size_t n = 0; n < count; n++) {
            const uint8_t *value = sealed + sealed_bytes * (size_t)rows[n];
            uint8_t *target = out + value_bytes * (size_t)rows[n];

            for (size_t byte = 0; byte < NUMBER_BYTES; byte++)
                place[number_at + byte] = (uint8_t)((uint64_t)numbers[n] >> (56 - 8 * byte));
            if (memcmp(value, header, header_bytes) == 0
                && open_one(context, keys + KEY_BYTES * n, value + header_bytes, place, additional_bytes, value_bytes,
                            target))
                opened[n] = 1;
            else
                OPENSSL_cleanse(target, value_bytes); /* what GCM wrote before it found out */
        }
    }
    EVP_CIPHER_CTX_free(context); /* overwrites the last key's schedule */
    return 0;
}

/* binary16 to binary32, exactly, and infinity and NaN to 65,536 and more: the sign stays on top, exponent and fraction
 * move to their places, and one multiplication mends the exponents' bias (127 - 15). */
static inline float widened(uint16_t half)
{
    uint32_t bits = ((uint32_t)(int32_t)(int16_t)half << 13) & 0x8FFFE000u;
    float value;

    memcpy(&value, &bits, sizeof value);
    return value * 0x1p112f;
}

/* Sums go in the same order for every row, so a score never depends on what else is scored beside it. */
FOR_EACH_PROCESSOR
static void score_one(const uint16_t *half, const float *query, size_t dimension, float *product, float *square)
{
    float products[LANES] = {0}, squares[LANES] = {0};
    size_t at = 0;

    for (; at + LANES <= dimension; at += LANES)
        for (size_t lane = 0; lane < LANES; lane++) {
            float value = widened(half[at + lane]);

            products[lane] += value * query[at + lane];
            squares[lane] += value * value;
        }
    for (; at < dimension; at++) {
        float value = widened(half[at]);

        products[0] += value * query[at];
        squares[0] += value * value;
    }
    for (size_t width = LANES / 2; width > 0; width /= 2)
        for (size_t lane = 0; lane < width; lane++) {
            products[lane] += products[lane + width];
            squares[lane] += squares[lane + width];
        }
    *product = products[0];
    *square = squares[0];
}

/* Each row's product with its query, and with itself; then the rows are zeros. Below 0: there is no such query, and
 * nothing was touched. */
int32_t se_score_halves(size_t count, size_t dimension, uint16_t *halves, const float *queries, size_t queries_count,
                        const int32_t *query_of, float *products, float *squares)
{
    for (size_t n = 0; n < count; n++)
        if (query_of[n] < 0 || (size_t)query_of[n] >= queries_count)
            return -1;
    for (size_t n = 0; n < count; n++)
        score_one(halves + dimension * n, queries + dimension * (size_t)query_of[n], dimension, products + n,
                  squares + n);
    OPENSSL_cleanse(halves, count * dimension * sizeof *halves);
    return 0;
}
