/* Many values in one call: read from files, opened with AES-256-GCM. Who calls holds no lock of the interpreter.
 *
 * The cipher is OpenSSL's (EVP); nothing is computed with keys here. Sizes are checked by the Python side (_calls.py),
 * which is the only one that calls. Source: NIST SP 800-38D.
 */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "bulk.h"

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

/* Slots of one size, one behind another into `out`; those that follow each other in a file are one read. How many, from
 * the first, are whole. */
size_t se_read_slots(size_t count, const int32_t *files, const int64_t *offsets, size_t slot_bytes, uint8_t *out)
{
    size_t first = 0;

    while (first < count) {
        size_t end = first + 1, bytes = slot_bytes;
        ssize_t got;

        while (end < count && files[end] == files[first] && offsets[end] == offsets[first] + (int64_t)bytes) {
            bytes += slot_bytes;
            end++;
        }
        do
            got = pread(files[first], out + first * slot_bytes, bytes, (off_t)offsets[first]);
        while (got < 0 && errno == EINTR);
        if (got < 0)
            return first;
        if ((size_t)got < bytes)
            return first + (size_t)got / slot_bytes;
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

/* Sealed values and plaintexts are rows of two tables; `rows` says which. The n-th has the n-th key, and the n-th number,
 * big end first, in its additional data. How many opened; the plaintext of one that did not is zeros. */
size_t se_open_values(size_t count, const int64_t *rows, const uint8_t *keys, const int64_t *numbers,
                      const uint8_t *additional, size_t additional_bytes, size_t number_at,
                      const uint8_t *sealed, size_t header_bytes, size_t value_bytes,
                      uint8_t *out, uint8_t *opened)
{
    const size_t sealed_bytes = header_bytes + NONCE_BYTES + value_bytes + TAG_BYTES;
    uint8_t place[ADDITIONAL_MAX];
    size_t done = 0;
    EVP_CIPHER_CTX *context;

    memset(opened, 0, count);
    if (gcm == NULL || additional_bytes > ADDITIONAL_MAX || number_at + NUMBER_BYTES > additional_bytes)
        return 0;
    context = EVP_CIPHER_CTX_new();
    if (context == NULL)
        return 0;
    memcpy(place, additional, additional_bytes);
    if (EVP_DecryptInit_ex2(context, gcm, NULL, NULL, NULL) > 0) {
        for (size_t n = 0; n < count; n++) {
            const uint8_t *value = sealed + sealed_bytes * (size_t)rows[n] + header_bytes;
            uint8_t *target = out + value_bytes * (size_t)rows[n];

            for (size_t byte = 0; byte < NUMBER_BYTES; byte++)
                place[number_at + byte] = (uint8_t)((uint64_t)numbers[n] >> (56 - 8 * byte));
            if (open_one(context, keys + KEY_BYTES * n, value, place, additional_bytes, value_bytes, target)) {
                opened[n] = 1;
                done++;
            } else {
                OPENSSL_cleanse(target, value_bytes); /* what GCM wrote before it found out */
            }
        }
    }
    EVP_CIPHER_CTX_free(context); /* overwrites the last key's schedule */
    return done;
}
