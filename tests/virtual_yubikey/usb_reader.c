/* Before vsmartcard's reader driver, which always has two slots: as many as VPCD_SLOTS says. A YubiKey has one, and
   programs that look for YubiKeys wait seconds for a card in the other. Everything else is the driver's own. */
#define _GNU_SOURCE
#include <PCSC/ifdhandler.h>
#include <dlfcn.h>
#include <stdlib.h>

RESPONSECODE IFDHGetCapabilities(DWORD lun, DWORD tag, PDWORD length, PUCHAR value) {
  static RESPONSECODE (*driver)(DWORD, DWORD, PDWORD, PUCHAR);
  if (tag == TAG_IFD_SLOTS_NUMBER) {
    *value = (UCHAR)atoi(getenv("VPCD_SLOTS"));
    *length = 1;
    return IFD_SUCCESS;
  }
  if (!driver) driver = (RESPONSECODE(*)(DWORD, DWORD, PDWORD, PUCHAR))dlsym(RTLD_NEXT, "IFDHGetCapabilities");
  return driver(lun, tag, length, value);
}
