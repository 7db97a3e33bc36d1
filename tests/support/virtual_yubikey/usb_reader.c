/* Before vsmartcard's reader driver: what makes its reader like a YubiKey's. Everything else is the driver's own.

   One slot (or as many as VPCD_SLOTS says), where the driver has two: programs that look for YubiKeys wait seconds for a
   card in the other. And a card that comes or goes is seen at once, as on USB, and keeps its power for the seconds that
   pcscd gives it after use; without an event, pcscd would look every 400 ms and take the power away then. */
#define _GNU_SOURCE
#include <PCSC/ifdhandler.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#define SLOTS 2
#define LOOK_AGAIN 20 /* milliseconds */

/* The driver leaves it to its callers that only one at a time speaks to a card. */
static pthread_mutex_t speaking[SLOTS] = {PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP, PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP};
static volatile int woken[SLOTS];
static __thread RESPONSECODE told; /* what pcscd's thread for this reader was last told of the card */

static unsigned slot_of(DWORD lun) { return (lun & 0xffff) % SLOTS; }

#define DRIVER(result, lun, name, types, values)           \
  do {                                                     \
    RESPONSECODE(*driver) types;                           \
    *(void **)&driver = dlsym(RTLD_NEXT, name);            \
    pthread_mutex_lock(&speaking[slot_of(lun)]);           \
    result = driver values;                                \
    pthread_mutex_unlock(&speaking[slot_of(lun)]);         \
  } while (0)

static RESPONSECODE presence(DWORD lun) {
  RESPONSECODE result;
  DRIVER(result, lun, "IFDHICCPresence", (DWORD), (lun));
  return result;
}

RESPONSECODE IFDHICCPresence(DWORD lun) { return told = presence(lun); }

RESPONSECODE IFDHPowerICC(DWORD lun, DWORD action, PUCHAR atr, PDWORD length) {
  RESPONSECODE result;
  DRIVER(result, lun, "IFDHPowerICC", (DWORD, DWORD, PUCHAR, PDWORD), (lun, action, atr, length));
  return result;
}

RESPONSECODE IFDHTransmitToICC(DWORD lun, SCARD_IO_HEADER send, PUCHAR command, DWORD size, PUCHAR answer, PDWORD room,
                               PSCARD_IO_HEADER receive) {
  RESPONSECODE result;
  DRIVER(result, lun, "IFDHTransmitToICC",
         (DWORD, SCARD_IO_HEADER, PUCHAR, DWORD, PUCHAR, PDWORD, PSCARD_IO_HEADER),
         (lun, send, command, size, answer, room, receive));
  return result;
}

/* Until the card is not as pcscd was told (it may have come or gone since), pcscd wakes it, or the time (in ms) is over.
 */
static RESPONSECODE wait_for_event(DWORD lun, int timeout) {
  unsigned slot = slot_of(lun);
  for (; timeout > 0 && !woken[slot]; timeout -= LOOK_AGAIN) {
    if (presence(lun) != told) break;
    usleep(LOOK_AGAIN * 1000);
  }
  woken[slot] = 0;
  return IFD_SUCCESS;
}

static RESPONSECODE wake(DWORD lun) {
  woken[slot_of(lun)] = 1;
  return IFD_SUCCESS;
}

RESPONSECODE IFDHGetCapabilities(DWORD lun, DWORD tag, PDWORD length, PUCHAR value) {
  RESPONSECODE result;
  switch (tag) {
    case TAG_IFD_SLOTS_NUMBER:
      *value = (UCHAR)atoi(getenv("VPCD_SLOTS"));
      *length = 1;
      return IFD_SUCCESS;
    case TAG_IFD_POLLING_THREAD_WITH_TIMEOUT:
      *(RESPONSECODE(**)(DWORD, int))value = wait_for_event;
      *length = sizeof(&wait_for_event);
      return IFD_SUCCESS;
    case TAG_IFD_STOP_POLLING_THREAD:
      *(RESPONSECODE(**)(DWORD))value = wake;
      *length = sizeof(&wake);
      return IFD_SUCCESS;
  }
  DRIVER(result, lun, "IFDHGetCapabilities", (DWORD, DWORD, PDWORD, PUCHAR), (lun, tag, length, value));
  return result;
}
